"""The weights of a model whose only public form is an ONNX export in int8, under the names that PyTorch gave them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["read_weights"]

_FLOAT = 1
"""`TensorProto.FLOAT`."""
_LINEAR = ("MatMul", "MatMulInteger")
_FOLLOWED = ("_DequantizeLinear_Output", "_quantized")


def read_weights(path: Path, rename: Callable[[str], str] = str) -> dict[str, np.ndarray]:
    """Tensors of the export at `path` by parameter name, float32; int8 ones are multiplied out.

    Tables, norms and biases keep their names in an export. The matrix of a linear layer is anonymous there and transposed: it
    gets its name from the node that uses it (`/encoder/block.0/MatMul` is `encoder.block.0.weight`).
    """
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(str(path)).graph
    stored = {tensor.name: tensor for tensor in graph.initializer}

    def array(name: str) -> np.ndarray:
        return np.asarray(numpy_helper.to_array(stored[name]))

    def dequantised(base: str, axis: int) -> np.ndarray:
        whole, scale = array(f"{base}_quantized").astype(np.float32), array(f"{base}_scale")
        zero = array(f"{base}_zero_point").astype(np.float32)
        if scale.ndim == 1:
            shape = [-1 if i == axis else 1 for i in range(whole.ndim)]
            scale, zero = scale.reshape(shape), zero.reshape(shape)
        return np.asarray((whole - zero) * scale)

    weights: dict[str, np.ndarray] = {}
    for name, tensor in stored.items():
        if name.endswith("_quantized") and not name.startswith(("onnx::", "/")):
            base = name.removesuffix("_quantized")
            weights[base] = dequantised(base, 0)
        elif tensor.data_type == _FLOAT and tensor.dims and name.endswith((".weight", ".bias")):
            weights[name] = array(name).astype(np.float32)
    for node in graph.node:
        if node.op_type in _LINEAR and (matrix := _matrix(node.input[1], stored, array, dequantised)) is not None:
            layer = node.name[1:].rsplit("/MatMul", 1)[0].replace("/", ".")
            weights[f"{layer}.weight"] = matrix.T
    return {rename(name): np.ascontiguousarray(weight) for name, weight in weights.items()}


def _matrix(name: str, stored: dict[str, Any], array: Callable[[str], np.ndarray], dequantised: Any) -> np.ndarray | None:
    """The weight (in, out) that a node multiplies by, or None: scores of attention are the product of two activations."""
    for ending in _FOLLOWED:
        name = name.removesuffix(ending)
    if f"{name}_quantized" in stored:
        return np.asarray(dequantised(name, 1))
    return array(name).astype(np.float32) if name in stored else None
