"""What the engine does when a device's memory runs out in the middle of generating."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from modelport.contract import Generate, OutOfMemory
from modelport_torch.engine import model as models
from modelport_torch.engine.cache import CacheLost
from modelport_torch.engine.own import OwnBatch
from modelport_torch.engine.scheduler import Scheduler

SteppedModel = models.SteppedModel


def ask(crowd: Any, folder: Path) -> Any:
    found = crowd(folder)
    for number in range(6):
        sampled = {"do_sample": True, "seed": number, "temperature": 1.2} if number % 2 else {}
        found.add(number, [7 + number] * (2 + number), max_new_tokens=6 + number, ignore_eos=True, **sampled)
    found.add(6, [3, 4, 5], n=3, max_new_tokens=5, do_sample=True, seed=9, ignore_eos=True, prompt_logprobs=0)
    return found


def fail_when(monkeypatch: pytest.MonkeyPatch, name: str, is_full: Callable[..., bool], error: Exception) -> list[int]:
    """Lets a method of the model run out of memory; counts how often it did."""
    own = getattr(SteppedModel, name)
    failures: list[int] = []

    def method(self: Any, *args: Any) -> Any:
        if is_full(*args):
            failures.append(1)
            raise error
        return own(self, *args)

    monkeypatch.setattr(SteppedModel, name, method)
    return failures


CUDA = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


@pytest.mark.parametrize(
    ("name", "is_full", "error"),
    [
        ("advance", lambda rows, aboard: len(rows) > 2, CUDA),
        ("prefill", lambda batch, first, size: len(batch) + first > 2, CUDA),
        ("advance", lambda rows, aboard: len(rows) > 1, CacheLost("no memory for a cache of 4 × 64 tokens")),
    ],
    ids=["while stepping", "while joining", "while the cache grows"],
)
def test_all_answers_are_given_as_if_there_had_been_memory(
    name: str, is_full: Any, error: Exception, crowd: Any, tiny: Any, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    expected = ask(crowd, tiny("llama")).drain()
    found = ask(crowd, tiny("llama"))
    failures = fail_when(monkeypatch, name, is_full, error)
    found.drain()
    assert failures
    assert found.tokens == expected.tokens
    assert found.finish == expected.finish
    assert "start over, fewer at once" in caplog.text
    told = [event.prompt_logprobs is not None for event in found.events if event.id == 6]
    assert sum(told) == 3, "what was asked of the prompt comes once for each choice"


def test_sequence_that_does_not_fit_alone_fails_and_the_next_one_runs(
    crowd: Any, tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = ask(crowd, tiny("llama"))
    with monkeypatch.context() as patched:
        fail_when(patched, "prefill", lambda *args: True, CUDA)
        with pytest.raises(OutOfMemory, match="a step of generation did not fit in memory: CUDA out of memory"):
            found.drain(50)
    for number in range(7):
        found.engine.cancel(number)
    found.add(20, [9, 8, 7], max_new_tokens=4, ignore_eos=True)
    found.drain()
    assert len(found.tokens[20, 0]) == 4


def test_prefixes_are_given_up_before_anybody_notices(crowd: Any, tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    found = crowd(tiny("llama"))
    failures = fail_when(monkeypatch, "read", lambda *args: True, CUDA)
    found.add(1, [7] * 40, max_new_tokens=3, ignore_eos=True)
    found.drain()
    assert failures
    assert found.finish == {(1, 0): "length"}


def test_fewer_rows_are_tried_first_then_shorter_pieces_and_more_again_after_a_while() -> None:
    scheduler = Scheduler(16, 4096, 512)
    assert scheduler.shrink(12)
    assert scheduler.max_rows == 6
    assert scheduler.shrink(1)
    assert scheduler.prefill_tokens == 256
    assert scheduler.shrink(1)
    assert not scheduler.shrink(1)
    for _ in range(512):
        scheduler.ease()
    assert scheduler.max_rows == 12
    for _ in range(5000):
        scheduler.ease()
    assert scheduler.max_rows == 16


def test_static_batch_that_does_not_fit_begins_again_as_smaller_ones(
    crowd: Any, tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = OwnBatch._run
    sizes: list[int] = []

    def run(self: OwnBatch) -> None:
        sizes.append(len(self._rows))
        if len(self._rows) > 2:
            self._go.acquire()
            self._told.put(CUDA)
        else:
            own(self)

    def ask_static() -> Any:
        found = crowd(tiny("llama"), Generate(mode="own"))
        for number in range(5):
            found.add(number, [7 + number] * 4, max_new_tokens=6, ignore_eos=True)
        return found.drain()

    expected = ask_static()
    monkeypatch.setattr(OwnBatch, "_run", run)
    found = ask_static()
    assert found.tokens == expected.tokens
    assert found.finish == expected.finish
    assert sizes == [5, 2, 2, 1]


def test_static_batch_of_one_that_does_not_fit_fails_with_the_reason(
    crowd: Any, tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(self: OwnBatch) -> None:
        self._go.acquire()
        self._told.put(CUDA)

    found = crowd(tiny("llama"), Generate(mode="own"))
    monkeypatch.setattr(OwnBatch, "_run", run)
    found.add(1, [7, 8], max_new_tokens=6)
    found.drain()
    assert found.finish == {(1, 0): "error"}
    assert "CUDA out of memory" in found.events[-1].error
