"""The part of the backend suite that is about generation: what the worker relies on of an `Engine`."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from modelport.contract.errors import InputTooLong, UnsupportedParameter
from modelport.contract.generate import Constraint, Engine, GenerateEvent, GenerateRequest, Sampling
from modelport.contract.program import Generate, Program
from modelport.contract.runner import Runner

__all__ = ["EngineSuite"]

Events = dict[tuple[int, int], list[GenerateEvent]]

_VALUES: dict[str, Any] = {
    "max_new_tokens": 3,
    "min_new_tokens": 2,
    "do_sample": True,
    "temperature": 0.7,
    "top_k": 5,
    "top_p": 0.9,
    "min_p": 0.05,
    "typical_p": 0.9,
    "repetition_penalty": 1.2,
    "no_repeat_ngram_size": 2,
    "num_beams": 2,
    "presence_penalty": 0.5,
    "frequency_penalty": 0.5,
    "logit_bias": {1: 1.0},
    "eos_token_id": [0],
    "ignore_eos": True,
    "seed": 1,
}
_FEATURES: dict[str, dict[str, Any]] = {
    "n": {"n": 2},
    "logprobs": {"logprobs": 1},
    "prompt_logprobs": {"prompt_logprobs": 1},
    "constraint": {"constraint": Constraint("choice", '["a", "b"]')},
    "adapter": {"adapter": "none-such"},
}


class EngineSuite:
    """Inherited by `BackendSuite`. Tests of parameters that a backend does not honour check that it says so."""

    vocabulary: ClassVar[int] = 64

    def generate_checkpoint(self, folder: Path) -> Path | None:
        """Writes a tiny checkpoint of a causal model; None (the default) if the backend does not generate."""
        return None

    def load(self, folder: Path, program: Program) -> Runner:
        """A runner in float32."""
        raise NotImplementedError

    # -------------------------------------------------------------------------------------------------------- fixtures

    @pytest.fixture
    def generator(self, tmp_path: Path) -> Iterator[Runner]:
        """The generate checkpoint, loaded."""
        folder = self.generate_checkpoint(tmp_path / "generate")
        if folder is None:
            pytest.skip("this backend does not generate")
        runner = self.load(folder, Program({"main": Generate()}))
        yield runner
        runner.close()

    @pytest.fixture
    def engine(self, generator: Runner) -> Engine:
        """Its engine."""
        return generator.engine("main")

    # ----------------------------------------------------------------------------------------------------------- tests

    def test_an_entry_has_one_engine(self, generator: Runner) -> None:
        """Made at the first call and the same ever after."""
        assert generator.engine("main") is generator.engine("main")

    def test_a_step_without_work_returns_at_once(self, engine: Engine) -> None:
        """The device thread must not be held."""
        began = time.perf_counter()
        assert engine.step() == []
        assert time.perf_counter() - began < 1
        assert (engine.load().running, engine.load().waiting) == (0, 0)

    def test_greedy_tokens_are_the_same_every_time_and_in_any_company(self, generator: Runner) -> None:
        """Alone, again, and beside seven others."""
        engine = generator.engine("main")
        alone = _tokens(_drain(engine, self._request(1)))[1, 0]
        again = _tokens(_drain(engine, self._request(2)))[2, 0]
        others = [self._request(10 + index, length=2 + index) for index in range(7)]
        together = _tokens(_drain(engine, self._request(3), *others))[3, 0]
        assert alone == again == together
        assert len(alone) <= 8

    def test_a_request_joins_while_another_runs(self, engine: Engine) -> None:
        """And changes nothing for it."""
        expected = _tokens(_drain(engine, self._request(1)))[1, 0]
        engine.add(self._request(2))
        events = engine.step()
        engine.add(self._request(3, length=5))
        assert _tokens(_collect(engine, events))[2, 0] == expected

    def test_the_limit_of_new_tokens_is_exact(self, generator: Runner) -> None:
        """Its finish is `length`, and no event follows."""
        if "ignore_eos" not in generator.limits.params:
            pytest.skip("without ignore_eos a model may end early")
        events = _drain(generator.engine("main"), self._request(1, max_new_tokens=5, ignore_eos=True))[1, 0]
        assert sum(len(event.tokens) for event in events) == 5
        assert [event.finish for event in events if event.finish] == ["length"]
        assert events[-1].finish == "length"

    def test_load_counts_what_runs_and_returns_to_nothing(self, engine: Engine) -> None:
        """Admission trusts it."""
        engine.add(self._request(1))
        engine.add(self._request(2))
        assert engine.load().running + engine.load().waiting == 2
        _collect(engine, [])
        load = engine.load()
        assert (load.running, load.waiting) == (0, 0)
        assert load.cache_used <= load.cache_total

    def test_a_cancelled_request_has_no_further_event_and_frees_its_place(self, engine: Engine) -> None:
        """Within one step; others do not notice."""
        expected = _tokens(_drain(engine, self._request(1)))[1, 0]
        engine.add(self._request(2, max_new_tokens=30))
        engine.add(self._request(3))
        events = engine.step()
        engine.cancel(2)
        engine.cancel(999)
        before = [event for event in events if event.id == 3]
        after = _collect(engine, before)
        assert not [key for key in after if key[0] == 2]
        assert _tokens(after)[3, 0] == expected
        assert engine.load().running == 0

    def test_a_seed_gives_the_same_tokens_and_choice_i_draws_from_seed_plus_i(self, generator: Runner) -> None:
        """So that n answers are n requests."""
        if not {"do_sample", "seed", "temperature", "n"} <= generator.limits.params:
            pytest.skip("this engine does not sample several choices by seed")
        engine = generator.engine("main")
        sampled: dict[str, Any] = {"do_sample": True, "temperature": 1.5}
        one = _tokens(_drain(engine, self._request(1, seed=5, **sampled)))
        two = _tokens(_drain(engine, self._request(2, seed=6, **sampled)))
        both = _tokens(_drain(engine, self._request(3, seed=5, n=2, **sampled)))
        assert (one[1, 0], two[2, 0]) == (both[3, 0], both[3, 1])

    def test_one_choice_can_be_cancelled(self, generator: Runner) -> None:
        """The other goes on to its end."""
        if "n" not in generator.limits.params:
            pytest.skip("this engine has one choice per request")
        engine = generator.engine("main")
        expected = _tokens(_drain(engine, self._request(1)))[1, 0]
        engine.add(self._request(2, n=2))
        first = engine.step()
        engine.cancel(2, 0)
        events = _collect(engine, [event for event in first if event.index == 1])
        assert set(events) == {(2, 1)}
        assert _tokens(events)[2, 1] == expected
        assert engine.load().running == 0

    def test_a_large_bias_decides_the_token(self, generator: Runner) -> None:
        """`logit_bias` is added to the logit."""
        if "logit_bias" not in generator.limits.params:
            pytest.skip("this engine has no logit_bias")
        tokens = _tokens(_drain(generator.engine("main"), self._request(1, logit_bias={7: 1e4}, max_new_tokens=3)))
        assert tokens[1, 0] == [7, 7, 7]

    @pytest.mark.parametrize("penalty", ["presence_penalty", "frequency_penalty"])
    def test_a_large_penalty_forbids_repetition(self, generator: Runner, penalty: str) -> None:
        """It counts what was generated, and not the prompt."""
        if not {penalty, "logit_bias"} <= generator.limits.params:
            pytest.skip(f"this engine has no {penalty} to show with logit_bias")
        biased = {7: 500.0, 8: 400.0, 9: 300.0}
        options: dict[str, Any] = {"logit_bias": biased, "max_new_tokens": 3, penalty: 250.0}
        request = self._request(1, prompt=[7, 7, 7], **options)
        assert _tokens(_drain(generator.engine("main"), request))[1, 0] == [7, 8, 9]

    def test_a_large_repetition_penalty_forbids_the_prompt_too(self, generator: Runner) -> None:
        """As transformers has it: it divides what is likely and multiplies what is not."""
        if "repetition_penalty" not in generator.limits.params:
            pytest.skip("this engine has no repetition_penalty")
        request = self._request(1, max_new_tokens=4, repetition_penalty=1e9)
        tokens = _tokens(_drain(generator.engine("main"), request))[1, 0]
        assert len(set(tokens)) == len(tokens)
        assert not set(tokens) & set(self._prompt(4).tolist())

    def test_log_probabilities_are_probabilities(self, generator: Runner) -> None:
        """Of the whole vocabulary they add up to one; greedy takes the first."""
        if "logprobs" not in generator.limits.params:
            pytest.skip("this engine has no logprobs")
        events = _drain(generator.engine("main"), self._request(1, logprobs=5, max_new_tokens=3))[1, 0]
        for event in (event for event in events if event.tokens):
            assert event.logprobs is not None
            assert event.top_logprobs is not None
            top = event.top_logprobs[0]
            assert len(top) == 5
            assert top[0].token == event.tokens[0]
            assert abs(top[0].logprob - event.logprobs[0]) < 1e-5
            assert sorted(top, key=lambda entry: -entry.logprob) == list(top)
            assert sum(np.exp(entry.logprob) for entry in top) <= 1 + 1e-5

    def test_prompt_log_probabilities_start_with_the_second_token(self, generator: Runner) -> None:
        """And come once, with the first event."""
        if "prompt_logprobs" not in generator.limits.params:
            pytest.skip("this engine has no prompt_logprobs")
        events = _drain(generator.engine("main"), self._request(1, length=4, prompt_logprobs=0, max_new_tokens=2))[1, 0]
        told = [event.prompt_logprobs for event in events if event.prompt_logprobs is not None]
        assert len(told) == 1
        assert events[0].prompt_logprobs is not None
        assert [entry[0].token for entry in told[0]] == [int(token) for token in self._prompt(4)[1:]]

    @pytest.mark.parametrize("name", [*_VALUES, *_FEATURES])
    def test_a_parameter_is_honoured_or_refused_by_name(self, generator: Runner, name: str) -> None:
        """`limits.params` is honest: what it names is taken, what it does not name is refused."""
        engine = generator.engine("main")
        options = _FEATURES.get(name) or {name: _VALUES[name]}
        if name in ("temperature", "top_k", "top_p", "min_p", "typical_p") and "do_sample" in generator.limits.params:
            options = {**options, "do_sample": True}
        request = self._request(1, **{"max_new_tokens": 3, **options})
        if name in generator.limits.params:
            if name != "adapter":
                assert _drain(engine, request)
            return
        with pytest.raises(UnsupportedParameter) as caught:
            engine.add(request)
        assert caught.value.param == name
        assert (engine.load().running, engine.load().waiting) == (0, 0)

    def test_a_prompt_that_can_never_fit_is_too_long(self, generator: Runner) -> None:
        """It is refused when it is added, and harms nobody."""
        most = generator.limits.max_length
        if most is None:
            pytest.skip("this runner has no limit of its own")
        engine = generator.engine("main")
        with pytest.raises(InputTooLong):
            engine.add(self._request(1, length=most + 1))
        assert _drain(engine, self._request(2))

    # --------------------------------------------------------------------------------------------------------- helpers

    def _prompt(self, length: int) -> np.ndarray:
        return np.random.default_rng(length).integers(1, self.vocabulary, length)

    def _request(self, number: int, length: int = 4, prompt: list[int] | None = None, **options: Any) -> GenerateRequest:
        features = {name: options.pop(name) for name in _FEATURES if name in options}
        ids = self._prompt(length) if prompt is None else np.asarray(prompt)
        params = Sampling(**{"max_new_tokens": 8, **options})
        return GenerateRequest(id=number, inputs={"input_ids": ids.astype(np.int64)}, params=params, **features)


def _drain(engine: Engine, *requests: GenerateRequest) -> Events:
    """Adds requests and steps until nothing runs."""
    for request in requests:
        engine.add(request)
    return _collect(engine, [])


def _collect(engine: Engine, before: list[GenerateEvent]) -> Events:
    events: Events = defaultdict(list)
    for event in before:
        events[event.id, event.index].append(event)
    for _ in range(2000):
        if not (engine.load().running or engine.load().waiting):
            return events
        for event in engine.step():
            events[event.id, event.index].append(event)
    raise AssertionError("the engine was still running after 2000 steps")


def _tokens(events: Events) -> dict[tuple[int, int], list[int]]:
    return {key: [token for event in told for token in event.tokens] for key, told in events.items()}
