"""A generation of one choice, taken whole."""

from __future__ import annotations

from collections.abc import AsyncIterator

from modelport.contract.generate import GenerateEvent

__all__ = ["tokens_of"]


async def tokens_of(generation: AsyncIterator[GenerateEvent]) -> list[int]:
    """What was generated, when it is done; what a run raises for a generation that failed goes on to the caller."""
    return [token async for event in generation for token in event.tokens]
