from __future__ import annotations

import pytest

from modelport.core.worker.deltas import DeltaBuffer
from modelport.tasks.text import TEXT_GENERATION, GenerationDelta, join_generation


def test_a_buffer_gives_deltas_in_order() -> None:
    buffer = DeltaBuffer(TEXT_GENERATION)
    for text in "abc":
        buffer.push(GenerationDelta(text=text))
    assert [buffer.pop().text for _ in range(3)] == ["a", "b", "c"]
    with pytest.raises(IndexError):
        buffer.pop()


def test_a_full_buffer_merges_and_loses_nothing() -> None:
    buffer = DeltaBuffer(TEXT_GENERATION)
    for number in range(10_000):
        buffer.push(GenerationDelta(text=f"{number} "))
    assert len(buffer) == 64
    assert "".join(delta.text for delta in buffer.pop_all()) == "".join(f"{number} " for number in range(10_000))
    assert len(buffer) == 0


def test_choices_that_alternate_are_merged_each_with_its_own() -> None:
    buffer, every = DeltaBuffer(TEXT_GENERATION, limit=4), []
    for number in range(100):
        delta = GenerationDelta(index=number % 3, text=f"{number} ", finish_reason="stop" if number >= 97 else None)
        every.append(delta)
        buffer.push(delta)
    assert len(buffer) <= 6
    assert join_generation(buffer.pop_all()) == join_generation(every)
