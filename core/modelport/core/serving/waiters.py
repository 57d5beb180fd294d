"""Those who wait for something to happen."""

from __future__ import annotations

import asyncio

__all__ = ["Waiters"]


class Waiters:
    """Tasks of one event loop that wait for the same thing."""

    def __init__(self) -> None:
        self._futures: list[asyncio.Future[None]] = []

    def __bool__(self) -> bool:
        return bool(self._futures)

    async def wait(self) -> None:
        """Returns at the next `wake`; raises what the next `fail` gives."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._futures.append(future)
        try:
            await future
        finally:
            if future in self._futures:
                self._futures.remove(future)

    def wake(self) -> None:
        """It happened."""
        for future in self._take():
            future.set_result(None)

    def fail(self, error: Exception) -> None:
        """It will not happen, and why."""
        for future in self._take():
            future.set_exception(error)

    def _take(self) -> list[asyncio.Future[None]]:
        futures, self._futures = self._futures, []
        return [future for future in futures if not future.done()]
