"""A streamed answer on its way to the caller: a bounded buffer, and the iterator that empties it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from modelport.contract.errors import ModelportError, Overloaded
from modelport.contract.reply import Timings, Usage
from modelport.contract.task import Task
from modelport.core.worker.deltas import DeltaBuffer

__all__ = ["Arrivals", "Stream"]

_MOST = 4096


class Arrivals:
    """Deltas that the caller has not taken yet: one writer and one reader, both on the event loop.

    At most 64 wait; further ones are merged into them. Where the task lets none be merged, a reader that falls far behind
    loses the stream rather than the server its memory.
    """

    def __init__(self, task: Task[Any, Any, Any]) -> None:
        self._deltas = DeltaBuffer(task)
        self._ended = False
        self._error: ModelportError | None = None
        self._reader: asyncio.Future[None] | None = None

    def __len__(self) -> int:
        return len(self._deltas)

    def put(self, delta: Any) -> None:
        """Adds a delta. After the end it is dropped.

        Raises:
            Overloaded: if the reader is so slow that no merging helps.
        """
        if self._ended:
            return
        self._deltas.push(delta)
        if len(self._deltas) > _MOST:
            raise Overloaded(f"The caller reads too slowly: {_MOST} pieces of the answer wait for it. Ask without streaming.")
        self._wake()

    def end(self, error: ModelportError | None = None) -> None:
        """No more will come; an error is raised after the last delta. The first call counts."""
        if not self._ended:
            self._ended, self._error = True, error
            self._wake()

    async def get(self) -> Any:
        """The next delta.

        Raises:
            StopAsyncIteration: at the end.
            ModelportError: at the end of a stream that failed.
        """
        while not len(self._deltas):
            if self._ended:
                error, self._error = self._error, None
                if error is not None:
                    raise error
                raise StopAsyncIteration
            await self._wait()
        return self._deltas.pop()

    async def first(self) -> None:
        """Returns when there is a delta or the end; a failure before any delta is raised."""
        while not len(self._deltas) and not self._ended:
            await self._wait()
        if not len(self._deltas) and self._error is not None:
            error, self._error = self._error, None
            raise error

    async def _wait(self) -> None:
        self._reader = asyncio.get_running_loop().create_future()
        try:
            await self._reader
        finally:
            self._reader = None

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)


class Stream:
    """The `DeltaStream` that API plugins iterate.

    Args:
        model: The model's own name.
        arrivals: Where the deltas come in.
        leave: Ends the request if it still runs; called once.
    """

    def __init__(self, model: str, arrivals: Arrivals, leave: Callable[[], None]) -> None:
        self.model = model
        self.usage = Usage()
        self.timings = Timings()
        self._arrivals = arrivals
        self._leave: Callable[[], None] | None = leave
        self._loop = asyncio.get_running_loop()

    def __aiter__(self) -> Stream:
        return self

    async def __anext__(self) -> Any:
        if self._leave is None:
            raise StopAsyncIteration
        try:
            return await self._arrivals.get()
        except BaseException:
            # the end, a failure, or the reading task was cancelled: in each case nobody reads on
            self._quit()
            raise

    async def aclose(self) -> None:
        """Ends the request. Idempotent."""
        self._quit()

    def __del__(self) -> None:
        leave, self._leave = getattr(self, "_leave", None), None
        if leave is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(leave)  # a collector may run anywhere

    def _quit(self) -> None:
        leave, self._leave = self._leave, None
        if leave is not None:
            leave()
