"""Time as the serving room sees it, so that a test can turn it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

__all__ = ["Clock", "LoopClock", "Timer"]


class Timer(Protocol):
    """A callback that has been set and can be taken back."""

    def cancel(self) -> None: ...


class Clock(Protocol):
    """Seconds that only go forward, and callbacks after some of them."""

    def now(self) -> float: ...

    def later(self, delay_s: float, callback: Callable[[], None]) -> Timer: ...


class LoopClock:
    """The monotonic clock, and the running event loop's timers."""

    def now(self) -> float:
        return time.monotonic()

    def later(self, delay_s: float, callback: Callable[[], None]) -> Timer:
        return asyncio.get_running_loop().call_later(delay_s, callback)
