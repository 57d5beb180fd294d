"""Parts on their way out of a worker, gathered so that one turn of the loop, or one engine step, is one frame."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from modelport.contract.executor import DeltaPart, Part
from modelport.contract.task import Task
from modelport.core.worker.deltas import DeltaBuffer

__all__ = ["Exit", "Outbox"]


class Exit(Protocol):
    """Where parts leave to."""

    @property
    def is_congested(self) -> bool:
        """Whether the reader is behind, so that parts should wait and be merged."""

    def when_clear(self, callback: Callable[[], None]) -> None:
        """Calls `callback` once, when the reader has caught up."""

    def deliver(self, parts: list[tuple[int, Part]]) -> None:
        """Sends parts, in order."""


class Outbox:
    """Collects parts and delivers all of them at the end of the loop's turn.

    While the exit is congested deltas wait here, at most 64 per call: further ones are merged, so a reader that is slow, or a
    server that is busy, costs neither memory nor the time of others.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, exit: Exit, tasks: Mapping[str, Task[Any, Any, Any]]) -> None:
        self._loop, self._exit, self._tasks = loop, exit, tasks
        self._parts: list[tuple[int, Part]] = []
        self._deltas: dict[int, DeltaBuffer] = {}
        self._is_scheduled = False

    def put(self, id: int, task: str, part: Part) -> None:
        """Adds a part of call `id`."""
        if isinstance(part, DeltaPart):
            buffer = self._deltas.get(id)
            if buffer is None:
                buffer = self._deltas[id] = DeltaBuffer(self._tasks[task])
            buffer.push(part.delta)
        else:
            self._flush_deltas(id)
            self._parts.append((id, part))
        self.gather()

    def gather(self) -> None:
        """Delivers what there is once all that is ready to run now has run."""
        if not self._is_scheduled:
            self._is_scheduled = True
            if self._exit.is_congested:
                self._exit.when_clear(self.flush)
            else:
                self._loop.call_soon(self._end_of_turn)

    def announce(self) -> None:
        """Delivers what there is now rather than at the end of the turn, unless the exit is congested."""
        if not self._exit.is_congested:
            self.flush()

    def flush(self) -> None:
        """Delivers what there is."""
        self._is_scheduled = False
        for call in list(self._deltas):
            self._flush_deltas(call)
        if self._parts:
            parts, self._parts = self._parts, []
            self._exit.deliver(parts)

    def _end_of_turn(self) -> None:
        if self._exit.is_congested:
            self._exit.when_clear(self.flush)
        else:
            self.flush()

    def _flush_deltas(self, id: int) -> None:
        buffer = self._deltas.pop(id, None)
        if buffer is not None:
            self._parts += [(id, DeltaPart(delta)) for delta in buffer.pop_all()]
