"""One ASGI `receive`, shared by the application and by whoever must know that the client has left."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from modelport.contract.errors import PayloadTooLarge

__all__ = ["Receiver"]

Message = MutableMapping[str, Any]
_GONE = {"type": "http.disconnect"}


class Receiver:
    """Hands body messages to the application and the client's leaving to everybody.

    An ASGI server's `receive` gives each message once, so a watcher would steal the body from the handler. Here one raw read at
    a time is in flight, shared by all who wait, and the body is kept for the application. A watcher reads at most one body
    message ahead.

    Args:
        raw: The server's `receive`.
        limit: Most bytes of body; more raise `PayloadTooLarge` in the application.
    """

    __slots__ = ("_body_done", "_gone", "_kept", "_limit", "_raw", "_reading", "_received", "_taken")

    def __init__(self, raw: Callable[[], Awaitable[Message]], limit: int) -> None:
        self._raw = raw
        self._limit = limit
        self._kept: deque[Message] = deque()
        self._reading: asyncio.Future[None] | None = None
        self._taken: asyncio.Event | None = None
        self._received = 0
        self._body_done = False
        self._gone = False

    async def __call__(self) -> Message:
        """The next message, for the application.

        Raises:
            PayloadTooLarge: the body is over the limit.
        """
        while not self._kept:
            if self._gone:
                return dict(_GONE)
            await (self._read_here() if self._reading is None else self._read())
        message = self._kept.popleft()
        if self._taken is not None:
            self._taken.set()
        if self._received > self._limit:
            raise PayloadTooLarge(f"The body is larger than the {self._limit:,} bytes that this server takes.")
        return message

    async def disconnected(self) -> Message:
        """Returns `http.disconnect` once the client has left, and not before. Any number may wait."""
        while not self._gone:
            if self._kept and not self._body_done:
                self._taken = self._taken or asyncio.Event()
                self._taken.clear()
                await self._taken.wait()
            else:
                await self._read()
        return dict(_GONE)

    def close(self) -> None:
        """Ends a read that is still in flight. Called when the request is over."""
        self._gone = True
        if self._taken is not None:
            self._taken.set()
        if self._reading is not None:
            self._reading.cancel()

    async def _read_here(self) -> None:
        """Reads for all, without a task: the body of most requests is there already, and nobody watches yet."""
        reading = self._reading = asyncio.get_running_loop().create_future()
        try:
            await self._read_once()
        finally:
            if not reading.done():
                reading.set_result(None)

    async def _read(self) -> None:
        if self._reading is None:
            self._reading = asyncio.ensure_future(self._read_once())
        reading = self._reading
        try:
            # Shielded: one waiter's cancellation must not lose a message that is another's.
            await asyncio.shield(reading)
        except asyncio.CancelledError:
            waiter = asyncio.current_task()
            if not reading.cancelled() or (waiter is not None and waiter.cancelling()):
                raise  # the waiter's own; otherwise `close` ended the read, and the loop above sees that

    async def _read_once(self) -> None:
        try:
            message = await self._raw()
            if message["type"] == "http.disconnect":
                self._gone = True
                if self._taken is not None:
                    self._taken.set()
                return
            self._received += len(message.get("body", b""))
            self._body_done = not message.get("more_body", False)
            self._kept.append(message)
        finally:
            self._reading = None
