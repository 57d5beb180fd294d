"""An int8 export is read back as the float32 weights that it stands for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from modelport.core.demo.onnx_weights import read_weights

onnx = pytest.importorskip("onnx")


def test_tables_norms_and_matrices_come_back_under_their_names(tmp_path: Path) -> None:
    from onnx import TensorProto, helper, numpy_helper

    table = np.arange(-6, 6, dtype=np.int8).reshape(4, 3)
    matrix = np.array([[1, 2], [3, 4], [5, 6]], dtype=np.uint8)
    stored = {
        "words.weight_quantized": table,
        "words.weight_scale": np.float32(0.5),
        "words.weight_zero_point": np.int8(1),
        "onnx::MatMul_7_quantized": matrix,
        "onnx::MatMul_7_scale": np.array([0.1, 0.2], np.float32),
        "onnx::MatMul_7_zero_point": np.array([1, 2], np.uint8),
        "norm.bias": np.ones(3, np.float32),
    }
    node = helper.make_node("MatMulInteger", ["x", "onnx::MatMul_7_quantized"], ["y"], name="/m.layer.0/proj/MatMul_quant")
    value = helper.make_tensor_value_info("x", TensorProto.UINT8, [1, 3])
    out = helper.make_tensor_value_info("y", TensorProto.INT32, [1, 2])
    graph = helper.make_graph([node], "g", [value], [out], [numpy_helper.from_array(np.asarray(v), k) for k, v in stored.items()])
    onnx.save(helper.make_model(graph), str(tmp_path / "model.onnx"))

    weights = read_weights(tmp_path / "model.onnx", lambda name: name.removeprefix("m."))

    assert set(weights) == {"words.weight", "norm.bias", "layer.0.proj.weight"}
    np.testing.assert_allclose(weights["words.weight"], (table.astype(np.float32) - 1) * 0.5)
    np.testing.assert_allclose(weights["layer.0.proj.weight"], [[0, 0.2, 0.4], [0, 0.4, 0.8]], atol=1e-6)
