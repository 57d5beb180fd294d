"""Server-sent events as OpenAI writes them: `data:` lines, the usage if it is asked for, `[DONE]`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import msgspec

from modelport.contract.dialect import renamed
from modelport.contract.errors import ModelportError
from modelport.contract.host import DeltaStream
from modelport.contract.reply import Usage
from modelport.streaming import EventStream
from modelport_api_openai.answer import add_usage, elapsed
from modelport_api_openai.errors import error_body

__all__ = ["ChunkWriter", "all_of", "event", "event_stream", "open_streams"]

_DONE = b"data: [DONE]\n\n"
_encoder = msgspec.json.Encoder()

Value = TypeVar("Value")


class ChunkWriter(Protocol):
    """Turns deltas into events of one dialect. `prompt` is the place of the delta's stream among the request's prompts."""

    def delta(self, prompt: int, delta: Any) -> bytes:
        """The events of a delta; empty if it has nothing to say."""

    def usage(self, usage: Usage) -> bytes:
        """The last event, if the caller asked for it; else empty."""


def event(value: msgspec.Struct) -> bytes:
    """`value` as one event."""
    return b"data: " + _encoder.encode(value) + b"\n\n"


def event_stream(streams: Sequence[DeltaStream], writer: ChunkWriter, names: Mapping[str, str], started: float) -> EventStream:
    """The response that writes `streams`; `names` are the dialect's names of the task's fields, for errors.

    A failure is an event with an error object, and the end: the official client raises on it.
    """
    return EventStream(streams, _Events(streams, writer, names), elapsed(started))


class _Events:
    def __init__(self, streams: Sequence[DeltaStream], writer: ChunkWriter, names: Mapping[str, str]) -> None:
        self._streams, self._writer, self._names = streams, writer, names
        self.delta = writer.delta

    def end(self) -> bytes:
        return self._writer.usage(add_usage([stream.usage for stream in self._streams])) + _DONE

    def failure(self, error: ModelportError) -> bytes:
        return b"data: " + error_body(renamed(error, self._names)) + b"\n\n"


async def all_of(awaitables: Sequence[Awaitable[Value]]) -> list[Value]:
    """All results in order; the first failure cancels the others and is raised once they have ended."""
    if len(awaitables) == 1:
        return [await awaitables[0]]
    tasks = [asyncio.ensure_future(awaitable) for awaitable in awaitables]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise


async def open_streams(opening: Sequence[Awaitable[DeltaStream]]) -> list[DeltaStream]:
    """All streams, once each has its first delta; if one is refused, those that are open are closed."""
    opened: list[DeltaStream] = []

    async def open_one(awaitable: Awaitable[DeltaStream]) -> DeltaStream:
        stream = await awaitable
        opened.append(stream)
        return stream

    try:
        return await all_of([open_one(awaitable) for awaitable in opening])
    except BaseException:
        for stream in opened:
            await stream.aclose()
        raise
