"""Server-sent events: one `data:` line per delta, a comment when nothing happens, an error event when it fails midway."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from litestar import Response

from modelport.contract.errors import ModelportError
from modelport.contract.host import DeltaStream
from modelport_api_native import error_body

__all__ = ["EventStream"]

KEEP_ALIVE_S = 15.0
_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class EventStream(Response[bytes]):
    """A streamed answer.

    Events are `{"delta": …}` in order, then one `{"done": true, "model", "task", "usage", "timings"}`, or, instead of it,
    `{"error": …}`. The host notices when the client leaves and ends the iteration.
    """

    def __init__(self, stream: DeltaStream, task: str, encode: msgspec.json.Encoder, keep_alive_s: float = KEEP_ALIVE_S) -> None:
        super().__init__(b"", media_type="text/event-stream")
        self._stream = stream
        self._task = task
        self._encode = encode.encode
        self._keep_alive_s = keep_alive_s

    def to_asgi_response(self, *args: Any, **kwargs: Any) -> Any:
        """The ASGI application that Litestar runs."""
        return self._respond

    async def _respond(self, scope: Any, receive: Any, send: Send) -> None:
        writing = asyncio.Lock()  # the keep-alive comes from a task of its own, so that a delta costs no timer

        async def write(text: bytes, more: bool = True) -> None:
            async with writing:
                await send({"type": "http.response.body", "body": text, "more_body": more})

        headers = [*_HEADERS, (b"x-modelport-task", self._task.encode("latin-1", "replace"))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        keeping = asyncio.create_task(self._keep_alive(write))
        try:
            await self._write_events(write)
        finally:
            keeping.cancel()
            await self._stream.aclose()

    async def _write_events(self, write: Callable[..., Awaitable[None]]) -> None:
        try:
            async for delta in self._stream:
                await write(self._event({"delta": delta}))
            final = {
                "done": True,
                "model": self._stream.model,
                "task": self._task,
                "usage": self._stream.usage,
                "timings": self._stream.timings,
            }
            await write(self._event(final), more=False)
        except ModelportError as error:
            await write(b"event: error\n" + self._event(error_body(error)), more=False)
        except Exception:
            defect = ModelportError("The server failed in a way it should not have. Its log has the details.")
            await write(b"event: error\n" + self._event(error_body(defect)), more=False)
            raise

    def _event(self, value: Any) -> bytes:
        return b"data: " + self._encode(value) + b"\n\n"

    async def _keep_alive(self, write: Callable[..., Awaitable[None]]) -> None:
        while True:
            await asyncio.sleep(self._keep_alive_s)
            await write(b": still here\n\n")
