"""Admission: a bounded queue per model, in items and in bytes at once. Pure: time is passed in."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np

from modelport.contract.errors import Overloaded

__all__ = ["Admission", "weigh"]

_FORGET = 0.98  # the service rate follows about the last fifty requests
_SHORTEST_RETRY_S = 0.1
_LONGEST_RETRY_S = 600.0
_UNKNOWN_RETRY_S = 1.0


class Admission:
    """Counts the requests of one model, refuses those over the bound, and measures how fast they are served.

    A request *waits* from `admit` until it reaches a device (`start`), and *runs* until `leave`. Only waiting ones count
    against the bounds: how many run at once is the worker's business.

    Args:
        model: The name in messages.
        items: Most requests that wait.
        size_bytes: Most bytes of requests that wait.
    """

    def __init__(self, model: str, items: int, size_bytes: int) -> None:
        self._model = model
        self._items = items
        self._size_bytes = size_bytes
        self.waiting = 0
        self.waiting_bytes = 0
        self.running = 0
        self._busy_s = 0.0
        self._served = 0.0
        self._since = 0.0

    def admit(self, size: int, now: float) -> None:
        """Counts a request of `size` bytes as waiting.

        Raises:
            Overloaded: if it would be one too many; a single request over the byte bound is taken by an empty queue.
        """
        if self.waiting >= self._items:
            self._refuse(f"{self.waiting} requests wait already, which is its limit (limits.queue_items)")
        if self.waiting and self.waiting_bytes + size > self._size_bytes:
            self._refuse(
                f"those that wait hold {self.waiting_bytes} bytes, and its limit is {self._size_bytes} (limits.queue_bytes)"
            )
        if not self.waiting:
            self._since = now
        self.waiting += 1
        self.waiting_bytes += size

    def start(self, size: int, now: float) -> None:
        """A waiting request has reached a device."""
        self._depart(size, now)
        self.running += 1

    def leave(self, size: int, now: float, *, started: bool, served: bool) -> None:
        """A request is gone: after it ran, or while it waited. `served` says that it was answered, which the rate counts."""
        if started:
            self.running -= 1
        elif served:
            self._depart(size, now)
        else:
            self.waiting -= 1
            self.waiting_bytes -= size

    def retry_after_s(self) -> float:
        """When a caller who is refused now would find the queue empty, at the measured rate."""
        if not self._served:
            return _UNKNOWN_RETRY_S
        return min(max(self.waiting * self._busy_s / self._served, _SHORTEST_RETRY_S), _LONGEST_RETRY_S)

    def _depart(self, size: int, now: float) -> None:
        # The interval between departures counts only while somebody waited: an idle night is not a slow model.
        self._busy_s = self._busy_s * _FORGET + max(now - self._since, 0.0)
        self._served = self._served * _FORGET + 1.0
        self._since = now
        self.waiting -= 1
        self.waiting_bytes -= size

    def _refuse(self, why: str) -> None:
        retry_after_s = self.retry_after_s()
        raise Overloaded(
            f"The model {self._model!r} takes no more requests now: {why}. Try again in {retry_after_s:.1f} s.",
            retry_after_s=retry_after_s,
        )


def weigh(value: Any) -> int:
    """About how many bytes a request holds: its texts, media and arrays, found without encoding it."""
    kind = type(value)
    if kind is str or kind is bytes:
        return len(value)
    if kind is list or kind is tuple:
        if value and type(value[0]) in (int, float):
            return 8 * len(value)
        return sum(map(weigh, value))
    if kind is dict:
        return sum(map(weigh, value.values()))
    if isinstance(value, msgspec.Struct):
        return 16 + sum(weigh(getattr(value, field)) for field in value.__struct_fields__)
    if kind is np.ndarray:
        return int(value.nbytes)
    return 8
