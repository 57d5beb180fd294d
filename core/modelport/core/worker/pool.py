"""The CPU pool of a worker, which knows how much it has to do and whether it moves."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

__all__ = ["CpuPool"]

T = TypeVar("T")


class CpuPool(ThreadPoolExecutor):
    """A thread pool.

    Attributes:
        jobs: Jobs that wait or run; one that hangs in C code is among them for ever.
        finished: Jobs that have ended since the start.
    """

    def __init__(self, workers: int) -> None:
        super().__init__(workers, thread_name_prefix="modelport-cpu")
        self.jobs = self.finished = 0
        self._count = threading.Lock()

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """As `ThreadPoolExecutor.submit`."""
        future = super().submit(fn, *args, **kwargs)
        with self._count:
            self.jobs += 1
        future.add_done_callback(self._ended)
        return future

    def _ended(self, future: Future[Any]) -> None:
        with self._count:
            self.jobs -= 1
            self.finished += 1
