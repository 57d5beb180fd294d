from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from modelport.contract import (
    ConfigurationError,
    GenerateRequest,
    InputTooLong,
    InvalidRequest,
    NotNumbers,
    Sampling,
    UnsupportedParameter,
)
from modelport_torch.engine.model import SteppedModel

KINDS = ["llama", "gpt2", "mistral", "qwen2", "gemma3"]
LENGTHS = (3, 40, 17, 60, 9, 33, 100, 5, 12, 48)


def prompts(count: int = len(LENGTHS)) -> list[np.ndarray]:
    draw = np.random.default_rng(1)
    return [draw.integers(5, 261, length) for length in LENGTHS[:count]]


def reference(folder: Path, prompt: np.ndarray, new: int = 24, **options: Any) -> list[int]:
    """What transformers itself generates, without the end token."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    ids = torch.from_numpy(prompt)[None]
    made = model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=new, **({"do_sample": False, "pad_token_id": 0} | options)
    )
    tokens = made[0, len(prompt) :].tolist()
    return tokens[: tokens.index(2)] if 2 in tokens else tokens


@pytest.mark.parametrize("kind", KINDS)
def test_greedy_tokens_equal_transformers_alone(kind: str, tiny: Callable[..., Path], crowd: Callable[..., Any]) -> None:
    people = crowd(tiny(kind))
    for key, prompt in enumerate(prompts(4)):
        people.add(key, prompt, max_new_tokens=24)
        people.drain()
        assert people.tokens[key, 0] == reference(tiny(kind), prompt)


@pytest.mark.parametrize("kind", KINDS)
def test_greedy_tokens_equal_transformers_in_a_crowd(kind: str, tiny: Callable[..., Path], crowd: Callable[..., Any]) -> None:
    people = crowd(tiny(kind), max_items=6)
    for key, prompt in enumerate(prompts()):
        people.add(key, prompt, max_new_tokens=24)
        people.step()  # each joins while the others are under way, and the late ones wait for a row
    people.drain()
    assert [people.tokens[key, 0] for key in range(len(LENGTHS))] == [reference(tiny(kind), p) for p in prompts()]


@pytest.mark.parametrize("kind", ["llama", "mistral", "qwen2"])
def test_long_prompt_joins_in_pieces_while_others_go_on(kind: str, tiny: Any, crowd: Callable[..., Any]) -> None:
    people = crowd(tiny(kind), options={"prefill_tokens": 64})
    long, short = prompts()[6], prompts()[0]
    people.add(1, short, max_new_tokens=20)
    people.step()
    people.add(2, long, max_new_tokens=8, n=2)
    for _ in range(12):  # 100 tokens are 13 pieces of 8: half of a quarter, since somebody runs and it is long
        assert {event.id for event in people.step()} == {1}
    assert {event.id for event in people.step()} == {1, 2}
    people.drain()
    assert people.tokens[1, 0] == reference(tiny(kind), short, 20)
    assert people.tokens[2, 0] == people.tokens[2, 1] == reference(tiny(kind), long, 8)


def test_long_prompt_takes_whole_steps_while_nobody_runs(tiny: Any, crowd: Callable[..., Any]) -> None:
    people = crowd(tiny("llama"), options={"prefill_tokens": 64})
    people.add(1, prompts()[6], max_new_tokens=8)
    assert people.step() == []
    assert {event.id for event in people.step()} == {1}


def test_tokens_are_the_same_when_the_cache_is_too_small_for_all(tiny: Any, crowd: Callable[..., Any]) -> None:
    folder = tiny("llama")
    people = crowd(folder, cache_bytes=2 * 2 * 2 * 16 * 4 * 448)
    assert people.engine.load().cache_total == 448
    for key in range(4):
        people.add(key, prompts()[3], max_new_tokens=100, seed=key, temperature=1.0)
    running = []
    while people.engine.load().running or people.engine.load().waiting:
        people.step()
        load = people.engine.load()
        assert load.cache_used <= load.cache_total
        running.append(load.running)
    assert (max(running), running[-20]) == (3, 1), "somebody was sent back and finished later"
    alone = crowd(folder)
    for key in range(4):
        alone.add(key, prompts()[3], max_new_tokens=100, seed=key, temperature=1.0)
        alone.drain()
    assert people.tokens == alone.tokens


def test_penalties_equal_transformers(tiny: Any, crowd: Callable[..., Any]) -> None:
    people = crowd(tiny("llama"))
    people.add(1, prompts()[1], max_new_tokens=30, repetition_penalty=1.4)
    people.add(2, prompts()[2], max_new_tokens=30, no_repeat_ngram_size=2)
    people.add(3, prompts()[3], max_new_tokens=30, min_new_tokens=30)
    people.drain()
    assert people.tokens[1, 0] == reference(tiny("llama"), prompts()[1], 30, repetition_penalty=1.4)
    assert people.tokens[2, 0] == reference(tiny("llama"), prompts()[2], 30, no_repeat_ngram_size=2)
    assert people.tokens[3, 0] == reference(tiny("llama"), prompts()[3], 30, min_new_tokens=30)


def test_end_token_stops_and_is_not_among_the_tokens(tiny: Any, crowd: Callable[..., Any]) -> None:
    people = crowd(tiny("llama"))
    people.add(1, prompts()[1], max_new_tokens=10)
    people.drain()
    greedy = people.tokens[1, 0]
    end = next(token for token in greedy if greedy.index(token) > 2)
    for key, more in ((2, {}), (3, {"ignore_eos": True}), (4, {"min_new_tokens": 8})):
        people.add(key, prompts()[1], max_new_tokens=10, eos_token_id=[end], **more)
    people.drain()
    assert people.tokens[2, 0] == greedy[: greedy.index(end)]
    assert people.finish == {(1, 0): "length", (2, 0): "stop", (3, 0): "length", (4, 0): people.finish[4, 0]}
    assert people.tokens[3, 0] == greedy
    assert len(people.tokens[4, 0]) >= 8


def test_choices_draw_from_seed_plus_index(tiny: Any, crowd: Callable[..., Any]) -> None:
    people = crowd(tiny("llama"))
    people.add(1, prompts()[1], n=3, seed=7, temperature=1.0, max_new_tokens=12)
    people.add(9, prompts()[4], max_new_tokens=30)
    people.drain()
    for index in range(3):
        people.add(2 + index, prompts()[1], seed=7 + index, temperature=1.0, max_new_tokens=12)
        people.drain()
        assert people.tokens[1, index] == people.tokens[2 + index, 0]
    assert len({tuple(people.tokens[1, index]) for index in range(3)}) == 3


def test_more_choices_than_rows_are_served_in_turns(tiny: Any, crowd: Callable[..., Any]) -> None:
    people = crowd(tiny("llama"), max_items=2)
    people.add(1, prompts()[1], n=5, max_new_tokens=6, prompt_logprobs=0)
    people.drain()
    assert sorted(people.finish) == [(1, index) for index in range(5)]
    assert len({tuple(tokens) for tokens in people.tokens.values()}) == 1
    firsts = [event for event in people.events if event.prompt_logprobs is not None]
    assert [len(event.prompt_logprobs) for event in firsts] == [39] * 5


def test_logprobs_are_of_raw_logits(tiny: Any, crowd: Callable[..., Any]) -> None:
    folder, prompt = tiny("llama"), prompts()[1]
    people = crowd(folder)
    people.add(1, prompt, logprobs=3, max_new_tokens=6, temperature=3.0, top_k=2, seed=1, repetition_penalty=1.5)
    people.add(2, prompts()[2], logprobs=0, max_new_tokens=6)
    people.add(3, prompts()[4], max_new_tokens=6)
    people.drain()
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    ids = [*prompt.tolist(), *people.tokens[1, 0]]
    with torch.no_grad():
        logs = model(torch.tensor([ids])).logits[0].log_softmax(-1)
    events = [event for event in people.events if event.id == 1]
    for place, event in enumerate(events, len(prompt) - 1):
        assert event.logprobs == pytest.approx([float(logs[place, event.tokens[0]])], abs=1e-4)
        values, tokens = logs[place].topk(3)
        assert [top.token for top in event.top_logprobs[0]] == tokens.tolist()
        assert [top.logprob for top in event.top_logprobs[0]] == pytest.approx(values.tolist(), abs=1e-4)
    assert all(len(e.logprobs) == len(e.tokens) and e.top_logprobs == ((),) for e in people.events if e.id == 2)
    assert all(e.logprobs is None and e.top_logprobs is None for e in people.events if e.id == 3)


@pytest.mark.parametrize("piece", [512, 16])
def test_prompt_logprobs_come_once_and_begin_with_the_second_token(piece: int, tiny: Any, crowd: Callable[..., Any]) -> None:
    folder, prompt = tiny("llama"), prompts()[1]
    people = crowd(folder, options={"prefill_tokens": piece})
    people.add(1, prompt, prompt_logprobs=2, max_new_tokens=3)
    people.add(2, prompts()[0], max_new_tokens=3)
    people.drain()
    described = [event.prompt_logprobs for event in people.events if event.id == 1]
    assert described[1:] == [None, None]
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        logs = model(torch.tensor([prompt.tolist()])).logits[0].log_softmax(-1)
    assert len(described[0]) == len(prompt) - 1
    for place, (own, *best) in enumerate(described[0]):
        assert own.token == prompt[place + 1]
        assert own.logprob == pytest.approx(float(logs[place, own.token]), abs=1e-4)
        assert [top.token for top in best] == logs[place].topk(2).indices.tolist()


def test_cancelled_request_gives_its_row_back_and_no_event(tiny: Any, crowd: Callable[..., Any]) -> None:
    people = crowd(tiny("llama"))
    for key in range(4):
        people.add(key, prompts()[key], max_new_tokens=20, n=2 if key == 1 else 1)
    people.step()
    assert people.engine.load().running == 5
    people.engine.cancel(0)
    people.engine.cancel(1, 1)
    people.engine.cancel(99)
    assert people.engine.load().running == 3
    seen = len(people.events)
    people.drain()
    assert {(event.id, event.index) for event in people.events[seen:]} == {(1, 0), (2, 0), (3, 0)}
    assert [people.tokens[key, 0] for key in (1, 2, 3)] == [reference(tiny("llama"), prompts()[key], 20) for key in (1, 2, 3)]


def test_cancelling_who_waits_or_joins_leaves_the_others_alone(tiny: Any, crowd: Callable[..., Any]) -> None:
    people = crowd(tiny("llama"), max_items=3, options={"prefill_tokens": 16})
    people.add(1, prompts()[0], max_new_tokens=20)
    people.step()
    people.add(2, prompts()[6], max_new_tokens=5, n=2)
    people.add(3, prompts()[2], max_new_tokens=5)
    people.step()
    people.engine.cancel(2, 0)
    people.step()
    people.engine.cancel(3)
    people.drain()
    assert sorted(people.finish) == [(1, 0), (2, 1)]
    assert people.tokens[1, 0] == reference(tiny("llama"), prompts()[0], 20)
    assert people.tokens[2, 1] == reference(tiny("llama"), prompts()[6], 5)
    people.add(4, prompts()[6], max_new_tokens=5)
    people.step()
    people.engine.cancel(4)
    assert people.engine.load().running == people.engine.load().waiting == 0


def test_deadline_ends_who_runs_and_who_waits(tiny: Any, crowd: Callable[..., Any]) -> None:
    now = 0.0
    people = crowd(tiny("llama"), max_items=1)
    people.engine.stepped._clock = lambda: now
    people.add(1, prompts()[0], max_new_tokens=50, deadline=5.0)
    people.add(2, prompts()[1], max_new_tokens=50, deadline=5.0)
    people.add(3, prompts()[2], max_new_tokens=5)
    people.step()
    now = 6.0
    people.drain()
    assert people.finish == {(1, 0): "cancelled", (2, 0): "cancelled", (3, 0): "length"}
    assert people.tokens[2, 0] == []


def test_higher_priority_joins_first(tiny: Any, crowd: Callable[..., Any]) -> None:
    people = crowd(tiny("llama"), max_items=1)
    for key, priority in ((1, 0), (2, 0), (3, 5)):
        people.add(key, prompts()[key], max_new_tokens=2, priority=priority)
    people.drain()
    assert list(people.finish) == [(3, 0), (1, 0), (2, 0)]


def test_output_ends_at_the_context_length(tiny: Any, crowd: Callable[..., Any]) -> None:
    people = crowd(tiny("llama"), max_length=70)
    people.add(1, prompts()[3])
    people.drain()
    assert len(people.tokens[1, 0]) == 10
    assert people.finish[1, 0] == "length"
    with pytest.raises(InputTooLong, match=r"the prompt has 100 tokens, and prompt and output together may have 70"):
        people.add(2, prompts()[6])


@pytest.mark.parametrize(
    ("request_", "error", "param"),
    [
        ({"params": Sampling(num_beams=400)}, InvalidRequest, "num_beams"),
        ({"params": Sampling(num_beams=4, logit_bias={1: 1.0})}, UnsupportedParameter, "logit_bias"),
        ({"params": Sampling(num_beams=2), "n": 3}, InvalidRequest, "n"),
        ({"adapter": "mine"}, UnsupportedParameter, "adapter"),
        ({"inputs": {"input_ids": np.zeros(0, np.int64)}}, InvalidRequest, "prompt"),
        ({"inputs": {"input_ids": np.array([5, 261])}}, InvalidRequest, "prompt"),
    ],
)
def test_request_that_cannot_be_served_is_refused_by_name(
    request_: dict[str, Any], error: type[InvalidRequest], param: str, tiny: Any, crowd: Callable[..., Any]
) -> None:
    people = crowd(tiny("llama"))
    with pytest.raises(error) as caught:
        people.engine.add(GenerateRequest(**({"id": 1, "inputs": {"input_ids": np.array([5])}} | request_)))
    assert caught.value.param == param
    assert people.engine.load().waiting == 0


def test_prompt_that_the_model_cannot_take_fails_alone(tiny: Any, crowd: Callable[..., Any]) -> None:
    people = crowd(tiny("llama"))
    people.add(1, prompts()[0], max_new_tokens=6)
    people.engine.add(
        GenerateRequest(id=2, inputs={"input_ids": prompts()[1], "position_ids": np.zeros(3)}, params=Sampling(max_new_tokens=6))
    )
    people.drain()
    assert people.finish == {(1, 0): "length", (2, 0): "error"}
    assert "could not be processed" in next(event.error for event in people.events if event.finish == "error")
    assert people.tokens[1, 0] == reference(tiny("llama"), prompts()[0], 6)


def test_failure_of_the_model_ends_who_runs_and_the_next_request_works(tiny: Any, crowd: Callable[..., Any]) -> None:
    people = crowd(tiny("llama"))
    people.add(1, prompts()[0], max_new_tokens=6)
    people.step()
    stepped = people.engine.stepped._model
    forward, stepped._forward = stepped._forward, lambda *args, **rest: 1 / 0
    with pytest.raises(ZeroDivisionError):
        people.step()
    stepped._forward = forward
    assert people.engine.load().running == 0
    people.add(2, prompts()[0], max_new_tokens=6)
    people.drain()
    assert people.tokens[2, 0] == reference(tiny("llama"), prompts()[0], 6)


def test_idle_engine_does_nothing_and_holds_little(tiny: Any, crowd: Callable[..., Any]) -> None:
    people = crowd(tiny("llama"), max_items=32, options={"prefill_tokens": 20_000})
    assert people.engine.step() == []
    for key in range(32):
        people.add(key, np.arange(5, 255).repeat(2)[:400], max_new_tokens=2)
    people.drain()
    assert people.engine.stepped._model._cache.shape == (0, 0)
    assert (people.engine.load().running, people.engine.load().cache_used) == (0, 0)


def test_engine_is_made_once(tiny: Any, load: Callable[..., Any]) -> None:
    from modelport.contract import Generate

    runner = load(tiny("llama"), Generate())
    assert runner.engine("main") is runner.engine("main")
    assert runner.limits.params >= {"seed", "n", "logprobs", "logit_bias"}


def test_architecture_that_answers_differently_in_steps_is_refused(tiny: Any) -> None:
    from modelport_torch.engine.check import check_stepping

    class Forgetful(transformers.LlamaForCausalLM):  # type: ignore[misc]
        @functools.wraps(transformers.LlamaForCausalLM.forward)
        def forward(self, position_ids: Any = None, **rest: Any) -> Any:
            if position_ids is not None and position_ids.shape[1] == 1:
                position_ids = position_ids * 0
            return super().forward(position_ids=position_ids, **rest)

    model = Forgetful.from_pretrained(tiny("llama")).eval()
    with pytest.raises(ConfigurationError, match=r"llama models give other logits in a batch of steps than alone"):
        check_stepping(model, torch.device("cpu"))


def test_cache_that_holds_nothing_is_an_error_of_memory(tiny: Any, crowd: Callable[..., Any]) -> None:
    with pytest.raises(MemoryError, match=r"the key/value cache may take 1,000 bytes"):
        crowd(tiny("llama"), cache_bytes=1000)


def test_fast_dtype_of_generation_is_calibrated_on_greedy_tokens(tiny: Any, load: Callable[..., Any]) -> None:
    from modelport.contract import Generate

    facts = load(tiny("llama"), Generate(), dtype="fast").facts
    assert "of 16 greedy tokens equal" in facts["calibration"]
    assert facts["dtype"] == ("bfloat16" if "passed" in facts["calibration"] else "float32")


def test_a_row_of_nan_ends_alone_and_leaves_nothing_behind(
    tiny: Callable[..., Path], crowd: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = {key: [key + 5] * (20 + key) for key in range(4)}
    alone = crowd(tiny("llama"))
    for key, prompt in prompts.items():
        alone.add(key, prompt, max_new_tokens=12)
    alone.drain()

    advance = SteppedModel.advance
    steps = iter(range(100))

    def spoil(model: Any, rows: Any, *rest: Any) -> torch.Tensor:
        logits = advance(model, rows, *rest)
        if next(steps) == 3:
            logits[[index for index, row in enumerate(rows) if row.request.id == 1]] = float("nan")
        return logits

    people = crowd(tiny("llama"))
    monkeypatch.setattr(SteppedModel, "advance", spoil)
    for key, prompt in prompts.items():
        people.add(key, prompt, max_new_tokens=12)
    people.drain()
    assert people.finish[1, 0] == "error"
    assert "NaN" in next(event.error for event in people.events if event.finish == "error")
    for key in (0, 2, 3):
        assert people.tokens[key, 0] == alone.tokens[key, 0], "the others keep their own logits"
    people.add(9, prompts[1], max_new_tokens=12)
    people.drain()
    assert people.tokens[9, 0] == alone.tokens[1, 0]


def test_nan_for_everybody_is_the_devices_fault(
    tiny: Callable[..., Path], crowd: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    advance = SteppedModel.advance
    people = crowd(tiny("llama"))
    people.add(1, [5, 6], max_new_tokens=5)
    monkeypatch.setattr(SteppedModel, "advance", lambda *args: advance(*args) * float("nan"))
    with pytest.raises(NotNumbers, match="NaN"):
        people.drain()
    assert people.engine.load().running == 0
