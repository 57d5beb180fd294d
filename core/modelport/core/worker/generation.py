"""A running generation, as a session sees it."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable

from modelport.contract.errors import ModelFailed
from modelport.contract.generate import GenerateEvent

__all__ = ["RunningGeneration"]


class RunningGeneration:
    """An asynchronous iterator of one request's events. Lives on the event loop, fed by the worker.

    `cancel(index)` is called to end a choice in the engine, `cancel(None)` to end all of them; `counted(event)` for every
    event that the session takes, so that what comes after a stop string is not charged; `over()` once, at the end.
    """

    def __init__(
        self,
        choices: int,
        cancel: Callable[[int | None], None],
        counted: Callable[[GenerateEvent], None],
        over: Callable[[RunningGeneration], None],
    ) -> None:
        self.began = time.monotonic()
        self._open = set(range(choices))
        self._cancel, self._counted, self._over = cancel, counted, over
        self._events: deque[GenerateEvent] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._error: BaseException | None = None
        self._is_over = False

    @property
    def choices(self) -> int:
        """How many of its choices are open."""
        return len(self._open)

    def __aiter__(self) -> AsyncIterator[GenerateEvent]:
        return self

    async def __anext__(self) -> GenerateEvent:
        while True:
            if self._events:
                event = self._events.popleft()
                self._counted(event)
                if event.finish is not None:
                    self._open.discard(event.index)
                if event.finish == "error":
                    self.fail(ModelFailed(event.error or "The engine gave up on this request."))
                    continue
                return event
            if self._error is not None:
                raise self._error
            if not self._open:
                self._end()
                raise StopAsyncIteration
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None

    def stop(self, index: int) -> None:
        """Ends choice `index`; events of it that have not been taken are dropped."""
        if index not in self._open:
            return
        self._open.discard(index)
        is_running = not any(event.index == index and event.finish is not None for event in self._events)
        self._events = deque(event for event in self._events if event.index != index)
        if is_running:
            self._cancel(index)
        self._wake()

    def push(self, event: GenerateEvent) -> None:
        """Something happened to this request."""
        if event.index in self._open and not self._is_over:
            self._events.append(event)
            self._wake()

    def fail(self, error: BaseException) -> None:
        """Ends it: iteration raises `error`. Choices that still run are cancelled."""
        if self._is_over:
            return
        self._error = error
        self._events.clear()
        if self._open:
            self._open.clear()
            self._cancel(None)
        self._end()
        self._wake()

    def _end(self) -> None:
        if not self._is_over:
            self._is_over = True
            self._over(self)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
