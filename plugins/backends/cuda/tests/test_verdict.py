from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from modelport.contract import Generate, ModelCard, Program
from modelport_backend_cuda.backend import CudaBackend
from modelport_torch import quantised

LLAMA = {
    "model_type": "llama",
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
}
PROGRAM = Program({"main": Generate()})


def card(**rest: Any) -> ModelCard:
    given = {"name": "m", "model_type": "llama", "parameters": 8_030_000_000, "weight_bytes": 16_060_000_000}
    return ModelCard(**({**given, "dtype": "bfloat16", "context_length": 8192, "config": LLAMA} | rest))


def verdict(backend: CudaBackend, described: ModelCard, place: int = 0, dtype: str = "auto") -> Any:
    return backend.verdict(PROGRAM, described, backend.probe().devices[place : place + 1], dtype)


def install(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    monkeypatch.setattr(quantised, "version_of", lambda name: "1.0" if name in names else "not installed")


def test_memory_counts_weights_cache_activations_and_the_context(backend: Callable[..., CudaBackend]) -> None:
    made = backend("h200")
    found = verdict(made, card())
    cache = 2 * 32 * 8 * 128 * 2 * 8192
    assert found.answer == "yes"
    assert found.dtype == "bfloat16"
    assert found.memory_bytes == made.runtime_bytes + 16_060_000_000 + cache + 2048 * 4096 * 16 * 2


def test_model_that_is_larger_than_the_device_is_refused_with_both_figures(backend: Callable[..., CudaBackend]) -> None:
    found = verdict(backend("mixed"), card(), place=0)
    assert found.answer == "no"
    assert "GiB in float32, and Tesla T4 has 15.0 GiB in all" in found.reason


def test_type_that_the_chip_computes_slowly_is_widened(backend: Callable[..., CudaBackend]) -> None:
    found = verdict(backend("mixed"), card(parameters=1_000_000_000, weight_bytes=2_000_000_000))
    assert found.dtype == "float32"
    assert "widened from bfloat16, which Tesla T4 does not compute in" in found.reason


def test_quantised_checkpoint_is_refused_with_the_package_that_is_missing(
    backend: Callable[..., CudaBackend], monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, "optimum")
    found = verdict(backend("h200"), card(quantization="gptq", weight_bytes=5_700_000_000))
    assert found.answer == "no"
    assert found.reason.endswith("loading it needs what is not installed: pip install gptqmodel.")


def test_quantised_checkpoint_takes_the_memory_of_its_files(
    backend: Callable[..., CudaBackend], monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, "gptqmodel")
    plain = verdict(backend("h200"), card())
    found = verdict(backend("h200"), card(quantization="awq", weight_bytes=5_700_000_000))
    assert found.answer == "yes"
    assert plain.memory_bytes - found.memory_bytes == 16_060_000_000 - 5_700_000_000


def test_quantised_kernels_need_a_chip_that_has_them(
    backend: Callable[..., CudaBackend], monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, "kernels", "fbgemm-gpu")
    old = verdict(backend("mixed"), card(quantization="fbgemm_fp8", weight_bytes=9_000_000_000), place=1)
    new = verdict(backend("h200"), card(quantization="fbgemm_fp8", weight_bytes=9_000_000_000))
    assert (old.answer, new.answer) == ("no", "yes")
    assert "need compute capability 9.0, and this device has 8.9" in old.reason


def test_kernels_that_are_fetched_as_code_need_to_be_allowed(
    backend: Callable[..., CudaBackend], monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, "kernels")
    fp8 = {"quantization": "fp8", "weight_bytes": 9_000_000_000}
    assert "trust_remote_code" in verdict(backend("h200"), card(**fp8)).reason
    assert verdict(backend("h200"), card(**fp8, trust_remote_code=True)).answer == "yes"


def test_unknown_format_is_refused_with_those_that_are_known(backend: Callable[..., CudaBackend]) -> None:
    found = verdict(backend("h200"), card(quantization="vptq"))
    assert found.answer == "no"
    assert "bitsandbytes" in found.reason
