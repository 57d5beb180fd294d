"""How long functions take: whether the next call is over sooner than a thread would have begun it."""

from __future__ import annotations

from collections import deque

__all__ = ["SHORT_S", "Pace"]

SHORT_S = 0.0005
"""What is over in this time runs on the event loop: to hand it to a thread and back costs as much."""

_SEEN = 8
_UNCONTENDED = 3
_FORGET = 0.9
_BASE_BYTES = 256


class Pace:
    """Learns the seconds that one function takes per byte of its request. Pure: times are passed in.

    The slowest calls count, and fade; processor time, because a thread also waits for its turn. A function that waits for
    something else (a file, a lock) most of the time is not short, however little it computes.
    """

    __slots__ = ("_per_byte", "_took")

    def __init__(self) -> None:
        self._per_byte = 0.0
        self._took: deque[float] = deque(maxlen=_SEEN)

    def learn(self, size: int, cpu_s: float, took_s: float) -> None:
        """A call with a request of `size` bytes used `cpu_s` seconds of a processor, and took `took_s`."""
        per_byte = cpu_s / (size + _BASE_BYTES)
        self._per_byte = max(per_byte, _FORGET * self._per_byte)
        self._took.append(took_s)

    def is_short(self, size: int) -> bool:
        """Whether a call with a request of `size` bytes is over within `SHORT_S`; not before some calls have been seen."""
        if len(self._took) < _SEEN or self._per_byte * (size + _BASE_BYTES) >= SHORT_S:
            return False
        return sum(took < SHORT_S for took in self._took) >= _UNCONTENDED
