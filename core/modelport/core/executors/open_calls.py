"""The calls of a replica that have not ended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from modelport.contract.errors import ModelportError, Unavailable
from modelport.contract.executor import FailedPart, Part, ResultPart, StartedPart
from modelport.contract.task import Task

__all__ = ["OpenCalls", "unloaded"]

Receive = Callable[[Part], None]


class _Open:
    __slots__ = ("has_started", "receive", "task")

    def __init__(self, receive: Receive, task: Task[Any, Any, Any] | None) -> None:
        self.receive, self.task = receive, task
        self.has_started = False


class OpenCalls:
    """Who waits for what. Lives on the event loop of the callers."""

    def __init__(self) -> None:
        self._calls: dict[int, _Open] = {}
        self._none = asyncio.Event()
        self._none.set()

    def __len__(self) -> int:
        return len(self._calls)

    def __contains__(self, id: int) -> bool:
        return id in self._calls

    def add(self, id: int, receive: Receive, task: Task[Any, Any, Any] | None = None) -> None:
        """A call begins."""
        self._calls[id] = _Open(receive, task)
        self._none.clear()

    def task(self, id: int) -> Task[Any, Any, Any] | None:
        """What the call asks for; None if it has ended."""
        opened = self._calls.get(id)
        return opened.task if opened is not None else None

    def give(self, id: int, part: Part) -> None:
        """Hands over a part; a result or a failure ends the call. Parts of calls that have ended are dropped."""
        opened = self._calls.get(id)
        if opened is None:
            return
        if isinstance(part, StartedPart):
            opened.has_started = True
        elif isinstance(part, ResultPart | FailedPart):
            del self._calls[id]
            if not self._calls:
                self._none.set()
        opened.receive(part)

    def fail(self, error: ModelportError) -> None:
        """Ends every call."""
        for number in list(self._calls):
            self.give(number, FailedPart(error.to_wire()))

    def bury(self, error: ModelportError) -> list[int]:
        """The replica is dead: ends the calls that had started, and forgets the others, whose ids it returns."""
        unstarted = [number for number, opened in self._calls.items() if not opened.has_started]
        for number in unstarted:
            del self._calls[number]
        self.fail(error)
        self._none.set()
        return unstarted

    async def none(self) -> None:
        """Returns when no call is open."""
        await self._none.wait()


def unloaded(model: str) -> Unavailable:
    """For calls that an unload ends."""
    return Unavailable(f"The model {model!r} was unloaded while it worked on this request. Send it again.")
