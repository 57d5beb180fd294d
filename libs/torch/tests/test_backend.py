from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from modelport.contract import ConfigurationError, Device, Forward, Generate, ModelCard, Output, Program
from modelport_torch.support import engine_params

GENERATE = Program({"main": Generate()})


@pytest.fixture
def embed(forward_of: Callable[..., Forward]) -> Program:
    return Program({"main": forward_of("feature-extraction", Output("last_hidden_state"))})


def test_verdict_is_yes_with_dtype_memory_and_params(backend: Any, tiny: Any, card: Any, device: Device, embed: Program) -> None:
    verdict = backend.verdict(GENERATE, card(tiny("llama")), [device])
    assert (verdict.answer, verdict.dtype, verdict.params) == ("yes", "float32", engine_params(has_tokenizer=True))
    assert verdict.memory_bytes > card(tiny("llama")).weight_bytes
    assert backend.verdict(embed, card(tiny("bert")), [device]).params == frozenset()


def test_verdict_says_when_a_type_is_widened(backend: Any, tiny: Any, card: Any, device: Device) -> None:
    verdict = backend.verdict(GENERATE, card(tiny("llama"), dtype="float16"), [device])
    assert verdict.dtype == "float32"
    assert "widened from float16" in verdict.reason


def test_wider_type_needs_more_memory(backend: Any, device: Device) -> None:
    small = ModelCard(name="m", weight_bytes=1 << 30, dtype="bfloat16", config={"hidden_size": 64})
    plain = msgspec.structs.replace(device, dtypes=("float32",))
    half, full = (backend.verdict(Program({}), small, [d]).memory_bytes for d in (device, plain))
    assert full - half >= 1 << 30


@pytest.mark.parametrize(
    ("change", "entry", "words"),
    [
        ({"quantization": "awq"}, Generate(), "quantised \\(awq\\)"),
        ({}, Generate(rules=("whisper_timestamps",)), "whisper_timestamps"),
        ({"weight_bytes": 1 << 40}, Generate(), "needs about 1024.* GiB in float32, and a host has 8.0 GiB"),
    ],
)
def test_verdict_of_no_gives_a_reason_to_act_on(
    change: dict[str, Any], entry: Generate, words: str, backend: Any, tiny: Any, card: Any, device: Device
) -> None:
    import re

    verdict = backend.verdict(Program({"main": entry}), card(tiny("llama"), **change), [device])
    assert verdict.answer == "no"
    assert re.search(words, verdict.reason)


def test_load_refuses_what_the_verdict_refuses(tiny: Callable[..., Path], load: Callable[..., Any]) -> None:
    with pytest.raises(ConfigurationError, match="rules over logits"):
        load(tiny("llama"), Generate(rules=("whisper_timestamps",)))


@pytest.mark.parametrize(
    ("change", "entry", "words"),
    [
        (
            {"config": {"model_type": "mamba", "state_size": 16}},
            Generate(),
            "static batches: mamba models keep a recurrent state",
        ),
        ({}, Generate(mode="own"), "static batches: the program asks for"),
    ],
)
def test_verdict_says_what_runs_in_static_batches_and_why(
    change: dict[str, Any], entry: Generate, words: str, backend: Any, tiny: Any, card: Any, device: Device
) -> None:
    verdict = backend.verdict(Program({"main": entry}), card(tiny("llama"), **change), [device])
    assert verdict.answer == "yes"
    assert words in verdict.reason
    assert "logprobs" not in verdict.params
    assert "num_beams" in verdict.params


def test_verdict_takes_well_under_a_millisecond(backend: Any, tiny: Any, card: Any, device: Device) -> None:
    described = card(tiny("llama"))
    best = 1.0
    for _ in range(50):
        start = time.perf_counter()
        backend.verdict(GENERATE, described, [device])
        best = min(best, time.perf_counter() - start)
    assert best < 0.001


def test_several_devices_are_refused(backend: Any, tiny: Any, card: Any, device: Device) -> None:
    assert backend.verdict(GENERATE, card(tiny("llama")), [device, device]).answer == "no"


def test_worker_environment_sets_threads_and_lets_idle_ones_sleep(
    backend: Any, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    environment = backend.environment([device], 3)
    assert environment["OMP_NUM_THREADS"] == environment["MKL_NUM_THREADS"] == "3"
    assert environment["OMP_WAIT_POLICY"] == "PASSIVE"
    assert environment["TORCHINDUCTOR_COMPILE_THREADS"] == "3"
    assert environment["TORCHINDUCTOR_CACHE_DIR"].endswith("/modelport/inductor")


def test_verdict_speaks_of_the_precision_that_was_asked_for(backend: Any, tiny: Any, card: Any, device: Device) -> None:
    described = card(tiny("llama"), dtype="bfloat16")
    own, wide = (backend.verdict(GENERATE, described, [device], dtype) for dtype in ("auto", "float32"))
    assert wide.dtype == "float32"
    assert "float32" in wide.reason
    assert wide.memory_bytes >= own.memory_bytes


def test_quantised_weights_take_what_their_files_take(backend: Any, device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    from modelport_torch import quantised

    monkeypatch.setattr(type(backend), "quantised", quantised.FORMATS)
    monkeypatch.setattr(quantised, "version_of", lambda name: "1.0")
    packed = ModelCard(
        name="m", parameters=1 << 30, weight_bytes=1 << 29, dtype="bfloat16", quantization="awq", config={"hidden_size": 64}
    )
    plain = msgspec.structs.replace(packed, quantization="", weight_bytes=1 << 31)
    small, large = (backend.verdict(GENERATE, card, [device]) for card in (packed, plain))
    assert large.memory_bytes - small.memory_bytes == (1 << 31) - (1 << 29)
    assert "its weights as they are quantised (awq)" in small.reason
