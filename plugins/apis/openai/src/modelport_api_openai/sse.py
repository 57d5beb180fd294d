"""Server-sent events as OpenAI writes them: deltas in, `data:` lines out, silence filled, failures told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Protocol, TypeVar

import msgspec
from litestar.response import Stream

from modelport.contract.errors import ModelportError
from modelport.contract.host import DeltaStream
from modelport.contract.reply import Usage
from modelport_api_openai.answer import add_usage, elapsed
from modelport_api_openai.errors import error_body, renamed

__all__ = ["KEEP_ALIVE_S", "ChunkWriter", "all_of", "event", "event_stream", "merged", "open_streams", "written"]

KEEP_ALIVE_S = 15.0
"""Seconds of silence after which a comment keeps proxies from closing the connection."""

_SILENCE = b": keep-alive\n\n"
_DONE = b"data: [DONE]\n\n"
_HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}
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


def event_stream(streams: Sequence[DeltaStream], writer: ChunkWriter, names: Mapping[str, str], started: float) -> Stream:
    """The response that writes `streams`; `names` are the dialect's names of the task's fields, for errors."""
    headers = {**_HEADERS, **elapsed(started)}
    return Stream(written(streams, writer, names), media_type="text/event-stream", status_code=200, headers=headers)


async def written(
    streams: Sequence[DeltaStream], writer: ChunkWriter, names: Mapping[str, str], silence_s: float = KEEP_ALIVE_S
) -> AsyncGenerator[bytes, None]:
    """The bytes of the response, one item per delta.

    A failure is an event with an error object, and the end: the official client raises on it, and nothing follows.
    """
    try:
        async with aclosing(merged(streams, silence_s)) as deltas:
            async for item in deltas:
                chunk = _SILENCE if item is None else writer.delta(*item)
                if chunk:
                    yield chunk
        yield writer.usage(add_usage([stream.usage for stream in streams])) + _DONE
    except ModelportError as error:
        yield _failure(renamed(error, names))
    except Exception:
        yield _failure(ModelportError("The server failed while it wrote this answer. The log has the cause; please report it."))
        raise


def _failure(error: ModelportError) -> bytes:
    return b"data: " + error_body(error) + b"\n\n"


async def merged(streams: Sequence[DeltaStream], silence_s: float) -> AsyncGenerator[tuple[int, Any] | None, None]:
    """Deltas of all streams as they come, each with its stream's place; None for every `silence_s` without any.

    A reader who stops early closes the streams; each holds at most one delta that the reader has not taken, so that a slow
    reader is felt at the source, which coalesces.

    Raises:
        ModelportError: the first failure of any stream.
    """
    queue: asyncio.Queue[tuple[int, Any]] = asyncio.Queue(maxsize=1)
    pumps = [asyncio.create_task(_pump(place, stream, queue)) for place, stream in enumerate(streams)]
    running = len(pumps)
    try:
        while running:
            try:
                async with asyncio.timeout(silence_s):
                    place, item = await queue.get()
            except TimeoutError:
                yield None
                continue
            if isinstance(item, _End):
                running -= 1
                if item.error is not None:
                    raise item.error
            else:
                yield place, item
    finally:
        # The pumps close their streams in tasks of their own, which a client's leaving does not cancel half-way.
        for pump in pumps:
            pump.cancel()


class _End:
    """The end of a stream in the queue, with what ended it if that was a failure."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error


async def _pump(place: int, stream: DeltaStream, queue: asyncio.Queue[tuple[int, Any]]) -> None:
    end = _End()
    try:
        try:
            async for delta in stream:
                await queue.put((place, delta))
        finally:
            await stream.aclose()
    except Exception as error:
        end = _End(error)
    await queue.put((place, end))


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
