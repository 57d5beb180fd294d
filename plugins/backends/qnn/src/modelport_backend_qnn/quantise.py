"""Quantisation of an exported model, by onnxruntime's own tools. Run in the converter."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize
from onnxruntime.quantization.execution_providers.qnn import get_qnn_qdq_config

from modelport_backend_qnn.bias import MASK
from modelport_backend_qnn.precision import Precision

__all__ = ["quantise"]

_ACTIVATIONS = {"int8": QuantType.QUInt8, "int16": QuantType.QUInt16}
# What the NPU takes beside these activations: 16-bit weights must be signed, 8-bit ones lose less around a zero of their own.
_WEIGHTS = {"int8": QuantType.QUInt8, "int16": QuantType.QInt16}
_LAYOUT = ("Cast", "Expand", "Identity", "Reshape", "Slice", "Transpose", "Unsqueeze")


class _Feeds(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
    def __init__(self, feeds: Sequence[dict[str, np.ndarray]]) -> None:
        self._feeds = iter(feeds)

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._feeds, None)


def quantise(
    plain: Path, out: Path, feeds: Sequence[dict[str, np.ndarray]], precision: Precision, *, by_channel: bool = False
) -> None:
    """Writes `plain` to `out` with quantisers around every operation, whose ranges are what `feeds` brings about.

    Attention's scores keep 16 bits where the rest has 8: with what hides tokens in their range, few steps would be left for those
    that are seen. `by_channel` gives every output channel of a linear layer or convolution a range of its own.
    """
    graph: Any = onnx.load(str(plain), load_external_data=False).graph
    finer: dict[str, list[dict[str, Any]]] = {}
    if precision.activations == "int8":
        finer |= {name: [{"quant_type": QuantType.QUInt16}] for name in _biased(graph)}
    if by_channel:
        finer |= {
            name: [{"axis": axis, "quant_type": QuantType.QInt8, "symmetric": True}] for name, axis in _channels(graph).items()
        }
    with _hushed():
        config = get_qnn_qdq_config(
            str(plain),
            _Feeds(feeds),
            activation_type=_ACTIVATIONS[precision.activations],
            weight_type=_WEIGHTS[precision.weights],
            init_overrides=finer,
        )
        quantize(str(plain), str(out), config)


def _biased(graph: Any) -> set[str]:
    """The tensors of the attention bias and of the scores that it is added to."""
    bias, scores = {MASK}, set[str]()
    for node in graph.node:
        if bias.isdisjoint(node.input):
            continue
        if node.op_type in _LAYOUT:
            bias.update(node.output)
        elif node.op_type == "Add":
            scores.update(node.output)
    return bias | scores if scores else set()


def _channels(graph: Any) -> dict[str, int]:
    """Weights of linear layers and convolutions, and the axis of their output channels; none that anything else reads too."""
    axes, others = dict[str, int](), set[str]()
    sizes = {initializer.name: len(initializer.dims) for initializer in graph.initializer}
    for node in graph.node:
        for place, name in enumerate(node.input):
            if place == 1 and (node.op_type == "Conv" or (node.op_type == "MatMul" and sizes.get(name) == 2)):
                axes[name] = 0 if node.op_type == "Conv" else 1
            else:
                others.add(name)
    return {name: axis for name, axis in axes.items() if name in sizes and name not in others}


@contextmanager
def _hushed() -> Iterator[None]:
    """Without the tool's hints to whoever calls it, which it gives to the root logger."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
