"""openvino_genai's engine beside transformers, on the same weights in float32."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from modelport.contract import Generate, GenerateRequest, InvalidRequest, Program, Sampling, UnsupportedParameter
from modelport.contract.runner import Runner
from modelport.testing import checkpoints
from modelport.testing.backend import card_of
from modelport_backend_openvino.backend import OpenVinoBackend
from modelport_backend_openvino.exported import generator_converter

KINDS = {"llama": checkpoints.tiny_llama, "gpt2": checkpoints.tiny_gpt2}
if generator_converter() == "optimum-intel":
    KINDS["qwen2"] = checkpoints.tiny_qwen2
LENGTHS = (3, 40, 17, 60, 9, 33, 100, 5, 12, 48, 7, 21, 64, 31, 2, 90)


class Crowd:
    """Drives an engine as the device thread does, and keeps what it says of each choice."""

    def __init__(self, runner: Runner) -> None:
        self.engine = runner.engine("main")
        self.tokens: dict[tuple[int, int], list[int]] = defaultdict(list)
        self.finish: dict[tuple[int, int], str] = {}

    def add(self, key: int, prompt: np.ndarray, n: int = 1, salt: str = "", deadline: float | None = None, **params: Any) -> None:
        sampling = Sampling(**{"max_new_tokens": 24, **params})
        inputs = {"input_ids": prompt}
        self.engine.add(GenerateRequest(id=key, inputs=inputs, params=sampling, n=n, cache_salt=salt, deadline=deadline))

    def step(self) -> None:
        for event in self.engine.step():
            key = event.id, event.index
            assert key not in self.finish, "an event after the end"
            self.tokens[key] += event.tokens
            if event.finish:
                self.finish[key] = event.finish

    def drain(self) -> None:
        while self.engine.load().running:
            self.step()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def find(kind: str) -> Path:
        if kind not in made:
            made[kind] = KINDS[kind](tmp_path_factory.mktemp(kind) / kind)
        return made[kind]

    return find


@pytest.fixture
def crowd(load: Any, tiny: Callable[[str], Path]) -> Callable[..., Crowd]:
    return lambda kind="llama", **rest: Crowd(load(tiny(kind), Program({"main": Generate()}), **rest))


@pytest.mark.skipif(generator_converter() == "optimum-intel", reason="optimum keeps windows")
def test_a_model_with_windows_is_refused_where_they_would_be_lost(tmp_path: Path) -> None:
    folder = checkpoints.tiny_qwen2(tmp_path / "m")
    verdict = OpenVinoBackend().verdict(Program({"main": Generate()}), card_of(folder), OpenVinoBackend().probe().devices)
    assert verdict.answer == "no"
    assert "a window of the text only" in verdict.reason


def prompts() -> list[np.ndarray]:
    draw = np.random.default_rng(1)
    return [draw.integers(5, 261, length) for length in LENGTHS]


def reference(folder: Path, prompt: np.ndarray, new: int = 24, **options: Any) -> list[int]:
    """What transformers generates greedily, without the end token."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    ids = torch.from_numpy(prompt)[None]
    given = {"do_sample": False, "pad_token_id": 0} | options
    made = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=new, **given)
    tokens = made[0, len(prompt) :].tolist()
    return tokens[: tokens.index(2)] if 2 in tokens else tokens


@pytest.mark.parametrize("kind", KINDS)
def test_greedy_tokens_equal_transformers_alone_and_in_a_crowd(kind: str, tiny: Any, crowd: Callable[..., Crowd]) -> None:
    expected = [reference(tiny(kind), prompt) for prompt in prompts()]
    people = crowd(kind)
    for key, prompt in enumerate(prompts()[:3]):
        people.add(100 + key, prompt)
        people.drain()
        assert people.tokens[100 + key, 0] == expected[key]
    for key, prompt in enumerate(prompts()):
        people.add(key, prompt)
        people.step()  # each joins while the others are under way
    people.drain()
    assert [people.tokens[key, 0] for key in range(len(LENGTHS))] == expected


def test_shared_prefixes_and_cancelled_neighbours_change_nothing(tiny: Any, crowd: Callable[..., Crowd]) -> None:
    prefix = prompts()[6]
    asked = [np.concatenate([prefix, tail]) for tail in prompts()[:6]]
    expected = [reference(tiny("llama"), prompt) for prompt in asked]
    people = crowd()
    for key, prompt in enumerate(asked):
        people.add(key, prompt)
        people.add(100 + key, prompt[:50])
    for _ in range(3):
        people.step()
    for key in range(6):
        people.engine.cancel(100 + key)
    seen = {key: len(tokens) for key, tokens in people.tokens.items()}
    people.drain()
    assert [people.tokens[key, 0] for key in range(6)] == expected
    assert all(len(people.tokens[100 + key, 0]) == seen.get((100 + key, 0), 0) for key in range(6))
    assert people.engine.load().cache_used == 0


def test_a_seed_draws_the_same_whoever_runs_beside(crowd: Callable[..., Crowd]) -> None:
    sampled: dict[str, Any] = {"do_sample": True, "temperature": 1.5, "seed": 7, "ignore_eos": True}
    people = crowd()
    people.add(1, prompts()[0], **sampled)
    people.drain()
    for key, prompt in enumerate(prompts()[1:9], 10):
        people.add(key, prompt, **sampled | {"seed": key})
        people.step()
    people.add(2, prompts()[0], **sampled)
    people.add(3, prompts()[0], **sampled | {"seed": 8})
    people.drain()
    assert people.tokens[2, 0] == people.tokens[1, 0]
    assert people.tokens[3, 0] != people.tokens[1, 0]


def test_without_a_seed_two_requests_differ(crowd: Callable[..., Crowd]) -> None:
    people = crowd()
    for key in (1, 2):
        people.add(key, prompts()[0], do_sample=True, temperature=2.0, ignore_eos=True)
    people.drain()
    assert people.tokens[1, 0] != people.tokens[2, 0]


def test_repetition_penalty_is_that_of_transformers(tiny: Any, crowd: Callable[..., Crowd]) -> None:
    people = crowd()
    for key, prompt in enumerate(prompts()[:6]):
        people.add(key, prompt, repetition_penalty=1.7)
    people.drain()
    expected = [reference(tiny("llama"), prompt, repetition_penalty=1.7) for prompt in prompts()[:6]]
    assert [people.tokens[key, 0] for key in range(6)] == expected


@pytest.mark.parametrize(("penalty", "size"), [("presence_penalty", 0.4), ("frequency_penalty", 0.3)])
def test_penalties_count_what_was_generated(penalty: str, size: float, tiny: Any, crowd: Callable[..., Crowd]) -> None:
    model = transformers.AutoModelForCausalLM.from_pretrained(tiny("llama"))
    people = crowd()
    for key, prompt in enumerate(prompts()[:5]):
        people.add(key, prompt, ignore_eos=True, max_new_tokens=16, **{penalty: size})
    people.drain()
    for key, prompt in enumerate(prompts()[:5]):
        tokens: list[int] = []
        for _ in range(16):
            with torch.no_grad():
                logits = model(torch.tensor([[*prompt.tolist(), *tokens]])).logits[0, -1]
            for token in set(tokens):
                logits[token] -= size * (tokens.count(token) if penalty == "frequency_penalty" else 1)
            tokens.append(int(logits.argmax()))
        assert people.tokens[key, 0] == tokens


def test_min_p_top_p_and_top_k_leave_only_the_likely(tiny: Any, crowd: Callable[..., Crowd]) -> None:
    people = crowd()
    narrow = ({"top_k": 1}, {"top_p": 1e-6}, {"min_p": 1.0})
    for key, only in enumerate(narrow):
        people.add(key, prompts()[4], do_sample=True, temperature=5.0, seed=key, **only)
    people.drain()
    assert [people.tokens[key, 0] for key in range(3)] == [reference(tiny("llama"), prompts()[4])] * 3


def test_what_openvino_refuses_is_the_callers_to_know(crowd: Callable[..., Crowd]) -> None:
    people = crowd()
    with pytest.raises(InvalidRequest, match="presence_penalty"):
        people.add(1, prompts()[0], presence_penalty=3.5)
    assert people.engine.load().running == 0


def test_an_end_token_ends_and_is_not_told(tiny: Any, crowd: Callable[..., Crowd]) -> None:
    plain = reference(tiny("llama"), prompts()[0])
    end = plain[5]
    people = crowd()
    people.add(1, prompts()[0], eos_token_id=[end])
    people.add(2, prompts()[0], eos_token_id=[end], min_new_tokens=plain.index(end) + 2)
    people.add(3, prompts()[0], eos_token_id=[end], ignore_eos=True)
    people.drain()
    assert people.tokens[1, 0] == plain[: plain.index(end)]
    assert people.finish[1, 0] == "stop"
    assert len(people.tokens[2, 0]) > plain.index(end) + 1
    assert people.tokens[3, 0] == plain
    assert people.finish[3, 0] == "length"


def test_a_deadline_ends_a_request_with_an_event(load: Any, tiny: Any) -> None:
    people = Crowd(load(tiny("llama"), Program({"main": Generate()})))
    people.engine._clock = lambda: 100.0
    people.add(1, prompts()[0], deadline=101.0)
    people.add(2, prompts()[0])
    people.step()
    people.engine._clock = lambda: 102.0
    people.drain()
    assert people.finish == {(1, 0): "cancelled", (2, 0): "length"}


def test_a_salt_is_refused_while_prefixes_are_shared(crowd: Callable[..., Crowd]) -> None:
    with pytest.raises(UnsupportedParameter, match="prefix_cache = false"):
        crowd().add(1, prompts()[0], salt="mine")
    people = crowd(options={"prefix_cache": False})
    people.add(1, prompts()[0], salt="mine")
    people.drain()
    assert len(people.tokens[1, 0]) == 24


def test_a_full_cache_makes_requests_wait_and_loses_none(tiny: Any, crowd: Callable[..., Crowd]) -> None:
    people = crowd(cache_bytes=64 * 1024)
    total = people.engine.load().cache_total
    assert total < sum(LENGTHS) + 24 * len(LENGTHS)
    short = [prompt for prompt in prompts() if len(prompt) + 24 <= people.engine.max_length]
    for key, prompt in enumerate(short):
        people.add(key, prompt)
    people.drain()
    assert [people.tokens[key, 0] for key in range(len(short))] == [reference(tiny("llama"), prompt) for prompt in short]


@pytest.mark.parametrize(("weights", "share"), [("int8", 0.6), ("int4", 0.5)])
def test_compressed_weights_are_small_on_disk_and_choose_nearly_the_same(
    weights: str, share: float, load: Any, tmp_path: Path
) -> None:
    def size(runner: Runner) -> int:
        return sum(file.stat().st_size for file in Path(runner.facts["converted"]).rglob("*.bin"))

    folder = checkpoints.tiny_llama(tmp_path / "wide", hidden_size=128, intermediate_size=512, torch_dtype="bfloat16")
    whole = load(folder, Program({"main": Generate()}), dtype="bfloat16")
    small = load(folder, Program({"main": Generate()}), dtype="bfloat16", options={"weights": weights})
    assert small.facts["weights"] == weights
    assert size(small) < share * size(whole)
    people = Crowd(small)
    for key, prompt in enumerate(prompts()):
        people.add(key, prompt, max_new_tokens=1)
    people.drain()
    same = [people.tokens[key, 0] == reference(folder, prompt)[:1] for key, prompt in enumerate(prompts())]
    assert sum(same) >= (14 if weights == "int8" else 6)


def test_fast_generates_in_the_faster_type_if_its_tokens_are_the_same(tiny: Callable[[str], Path], load: Callable) -> None:
    runner = load(tiny("llama"), Program({"main": Generate()}), dtype="fast")
    facts = runner.facts
    assert re.fullmatch(
        r"bfloat16 (passed|failed): \d+ of 16 greedy tokens equal|float32 is the fastest type here", facts["calibration"]
    )
    assert facts["dtype"] == ("bfloat16" if "passed" in facts["calibration"] else "float32")
    people = Crowd(runner)
    people.add(1, np.arange(5, 12), ignore_eos=True)
    people.drain()
    assert people.finish == {(1, 0): "length"}
