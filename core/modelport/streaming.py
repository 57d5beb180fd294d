"""Streamed answers as server-sent events, for API plugins: deltas in, events out, silence filled, failures told.

A surface says how its dialect writes a delta, the end and a failure; everything else is the same for all::

    class Writer:
        def delta(self, place, delta):
            return b"data: " + msgspec.json.encode(delta) + b"\\n\\n"

        def end(self):
            return b"data: [DONE]\\n\\n"

        def failure(self, error):
            return b"data: " + msgspec.json.encode({"error": error.message}) + b"\\n\\n"

    return EventStream([await host.stream("text-generation", model, request, principal, scope)], Writer())
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

from litestar import Response

from modelport.contract.errors import ModelportError
from modelport.contract.host import DeltaStream

__all__ = ["KEEP_ALIVE_S", "EventStream", "EventWriter"]

KEEP_ALIVE_S = 15.0
"""Seconds of silence after which a comment keeps proxies from closing the connection."""

_SILENCE = b": keep-alive\n\n"
_HEADERS = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache", "x-accel-buffering": "no"}
_DEFECT = "The server failed while it wrote this answer. The log has the cause; please report it."


class EventWriter(Protocol):
    """How a dialect writes. Each method returns whole events, or nothing."""

    def delta(self, place: int, delta: Any) -> bytes:
        """A delta of the stream at `place`."""

    def end(self) -> bytes:
        """What follows the last delta of all streams; their usage is complete then."""

    def failure(self, error: ModelportError) -> bytes:
        """What is written instead of the end. Nothing follows it."""


class EventStream(Response[bytes]):
    """The response that writes streams, as their deltas come, until all have ended or one has failed.

    A client that reads slowly is felt at the source, which coalesces. One that leaves is noticed by the host, which ends the
    streams. Whatever happens, they are closed.

    Args:
        streams: Usually one; several where a request has several prompts.
        writer: Writes them.
        headers: More headers.
        keep_alive_s: How long silence lasts before a comment fills it.
    """

    def __init__(
        self,
        streams: Sequence[DeltaStream],
        writer: EventWriter,
        headers: Mapping[str, str] | None = None,
        keep_alive_s: float = KEEP_ALIVE_S,
    ) -> None:
        super().__init__(b"", media_type="text/event-stream", status_code=200)
        self._streams = streams
        self._writer = writer
        self._head = [(n.encode("latin-1"), v.encode("latin-1")) for n, v in {**_HEADERS, **(headers or {})}.items()]
        self._keep_alive_s = keep_alive_s
        self._loop = asyncio.get_running_loop()
        self._last = self._loop.time()

    def to_asgi_response(self, *args: Any, **kwargs: Any) -> Any:
        """The ASGI application that Litestar runs."""
        return self._respond

    async def _respond(self, scope: Any, receive: Any, send: Callable[[dict[str, Any]], Awaitable[None]]) -> None:
        async def write(text: bytes, more: bool = True) -> None:
            self._last = self._loop.time()
            await send({"type": "http.response.body", "body": text, "more_body": more})

        await send({"type": "http.response.start", "status": 200, "headers": self._head})
        keeping = asyncio.create_task(self._keep_alive(write))  # a task of its own, so that a delta costs no timer
        defect: Exception | None = None
        try:
            await self._all(write)
            last = self._writer.end()
        except ModelportError as error:
            last = self._writer.failure(error)
        except Exception as error:
            defect = error
            last = self._writer.failure(ModelportError(_DEFECT))
        finally:
            keeping.cancel()
            for stream in self._streams:
                await stream.aclose()
        await write(last, more=False)
        if defect is not None:
            raise defect

    async def _all(self, write: Callable[[bytes], Awaitable[None]]) -> None:
        if len(self._streams) == 1:
            await self._one(0, self._streams[0], write)
            return
        try:
            async with asyncio.TaskGroup() as group:
                for place, stream in enumerate(self._streams):
                    group.create_task(self._one(place, stream, write))
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None

    async def _one(self, place: int, stream: DeltaStream, write: Callable[[bytes], Awaitable[None]]) -> None:
        async for delta in stream:
            if text := self._writer.delta(place, delta):
                await write(text)

    async def _keep_alive(self, write: Callable[[bytes], Awaitable[None]]) -> None:
        while True:
            await asyncio.sleep(max(self._last + self._keep_alive_s - self._loop.time(), 0))
            if self._loop.time() - self._last >= self._keep_alive_s:
                await write(_SILENCE)
