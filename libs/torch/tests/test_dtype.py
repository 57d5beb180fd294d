from __future__ import annotations

import pytest
import torch

from modelport.contract import ConfigurationError
from modelport_torch.dtype import fast, itemsize, resolve, torch_dtype


@pytest.mark.parametrize(
    ("requested", "own", "runs", "used"),
    [
        ("auto", "float32", ("float32", "bfloat16"), "float32"),
        ("auto", "bfloat16", ("float32", "bfloat16"), "bfloat16"),
        ("auto", "bfloat16", ("float32",), "float32"),
        ("auto", "float16", ("float32", "bfloat16"), "float32"),
        ("auto", "float16", ("float32", "float16"), "float16"),
        ("auto", "float8_e4m3fn", ("float32",), "float32"),
        ("fast", "float32", ("float32", "bfloat16"), "float32"),
        ("bfloat16", "float32", ("float32",), "bfloat16"),
    ],
)
def test_dtype_follows_the_checkpoint_where_the_device_can(requested: str, own: str, runs: tuple[str, ...], used: str) -> None:
    assert resolve(requested, own, runs) == used


def test_dtype_that_is_unknown_is_refused_with_the_choices() -> None:
    with pytest.raises(
        ConfigurationError, match=r"dtype 'fp8' is not known: use auto, fast or one of float32, bfloat16"
    ) as caught:
        resolve("fp8", "float32", ("float32",))
    assert caught.value.param == "dtype"


def test_fast_names_a_half_type_only_where_it_is_fast_and_not_in_use_already() -> None:
    assert fast("float32", ("float32", "bfloat16")) == "bfloat16"
    assert fast("float32", ("float32",)) is None
    assert fast("bfloat16", ("float32", "bfloat16")) is None


def test_numpy_names_become_torch_types() -> None:
    assert torch_dtype("int64") is torch.int64
    assert torch_dtype("bool_") is torch.bool
    with pytest.raises(ValueError, match="no type 'nonsense'"):
        torch_dtype("nonsense")
    assert (itemsize("bfloat16"), itemsize("float64"), itemsize("else")) == (2, 8, 4)
