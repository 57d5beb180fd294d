from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from modelport.contract import (
    Argmax,
    At,
    Cast,
    ConfigurationError,
    Dense,
    LogSoftmax,
    Normalize,
    Pool,
    Sigmoid,
    Softmax,
    Splade,
    TopK,
)
from modelport.contract import reduce as reference
from modelport.contract.program import Step, step_name
from modelport_torch.reduce import REDUCTIONS, DenseFiles, reduce

CPU = torch.device("cpu")
STEPS: list[Step] = [
    *(Pool(mode) for mode in ("mean", "cls", "last", "max")),
    *(Dense("dense.safetensors", activation) for activation in ("identity", "tanh", "relu", "gelu")),
    Normalize(), Softmax(), LogSoftmax(), Sigmoid(), Argmax(), TopK(3), At("places"), Cast("float64"), Cast("int32"),
    *(Splade(mode=mode, activation=activation) for mode in ("max", "sum") for activation in ("relu", "log1p_relu")),
]  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    draw = np.random.default_rng(1)
    weights = {"linear.weight": draw.standard_normal((4, 6)), "linear.bias": draw.standard_normal(4)}
    save_file({name: value.astype(np.float32) for name, value in weights.items()}, tmp_path / "dense.safetensors")
    return tmp_path


def batch(left: bool) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    value = np.random.default_rng(0).standard_normal((3, 5, 6)).astype(np.float32)
    mask = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 0, 0, 0, 0]])
    return value, {"attention_mask": mask[:, ::-1].copy() if left else mask, "places": np.array([[0, 4], [1, 1], [2, 3]])}


@pytest.mark.parametrize("left", [False, True], ids=["padded right", "padded left"])
@pytest.mark.parametrize("step", STEPS, ids=repr)
def test_reduction_equals_the_reference(step: Step, left: bool, folder: Path) -> None:
    value, inputs = batch(left)
    wanted = reference.apply(step, value, inputs, reference.dense_reader(folder))
    got = reduce(step, torch.from_numpy(value), {n: torch.from_numpy(v) for n, v in inputs.items()}, DenseFiles(folder, CPU))
    assert len(got) == len(wanted)
    for ours, theirs in zip(got, wanted, strict=True):
        assert ours.numpy().dtype == theirs.dtype
        np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-5, atol=1e-6)


def test_every_reduction_of_the_contract_is_listed() -> None:
    assert {step_name(step) for step in STEPS} == REDUCTIONS


def test_reduction_of_a_half_type_is_computed_in_float32(folder: Path) -> None:
    value, inputs = batch(False)
    half = torch.from_numpy(value).bfloat16()
    (got,) = reduce(Pool("mean"), half, {n: torch.from_numpy(v) for n, v in inputs.items()}, DenseFiles(folder, CPU))
    (wanted,) = reference.apply(Pool("mean"), half.float().numpy(), inputs)
    assert got.dtype == torch.float32
    np.testing.assert_allclose(got.numpy(), wanted, rtol=1e-5, atol=1e-6)


def test_topk_of_ties_keeps_the_earliest(folder: Path) -> None:
    values, indices = reduce(TopK(2), torch.tensor([[1.0, 3.0, 3.0, 3.0]]), {}, DenseFiles(folder, CPU))
    assert values.tolist() == [[3.0, 3.0]]
    assert indices.tolist() == [[1, 2]]


@pytest.mark.parametrize(
    ("file", "words"), [("other.safetensors", "does not have it"), ("../dense.safetensors", "outside the checkpoint")]
)
def test_dense_file_that_cannot_be_used_is_named(file: str, words: str, folder: Path) -> None:
    with pytest.raises(ConfigurationError, match=words):
        DenseFiles(folder, CPU)(file)


def test_dense_file_without_its_tensor_says_what_it_has(folder: Path) -> None:
    save_file({"weight": np.zeros((2, 2), np.float32)}, folder / "odd.safetensors")
    with pytest.raises(ConfigurationError, match=r"no tensor 'linear.weight'.*it has: weight"):
        DenseFiles(folder, CPU)("odd.safetensors")
