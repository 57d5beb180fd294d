"""Whether the next batch waits for callers who were just answered, and will often ask again at once."""

from __future__ import annotations

__all__ = ["LEAST_S", "Patience"]

LEAST_S = 0.001
"""Loops have no finer timers; less is not waited."""

_MOST_S = 0.01
_MOST_SKIPPED = 64


class Patience:
    """Decides after each batch how long the device may stay idle. Pure: times are passed in.

    Callers that have one request open each, and there are more of them than ride one batch, would otherwise part into two groups
    that take turns: each asks again while the other's batch computes. Waits in vain make it wait less often: not after the next
    batch, then not after three, up to 64.

    Args:
        share: Of a batch's time, the most that the next one waits; 0 never waits.
    """

    def __init__(self, share: float) -> None:
        self._share = share
        self._until = 0.0
        self._hoped = self._expected = 0
        self._is_holding = False
        self._in_vain = self._skip = 0

    def batch_ended(self, now: float, took_s: float, answered: int, waiting: int) -> None:
        """A batch took so long; so many callers have all they asked for, and others wait."""
        self._is_holding = False
        self._until = now
        if self._share and answered:
            if self._skip:
                self._skip -= 1
            elif self._share * took_s >= LEAST_S:
                self._until += min(self._share * took_s, _MOST_S)
                self._hoped, self._expected = answered, answered + waiting

    def wait_s(self, now: float, callers: int) -> float:
        """How long the device should still wait now that so many callers do; 0 is not at all."""
        if not self._until:
            return 0.0
        if now < self._until and callers < self._expected:
            self._is_holding = True
            return self._until - now
        if self._is_holding:
            came = callers - (self._expected - self._hoped)
            self._in_vain = 0 if 2 * came >= self._hoped else self._in_vain + 1
            self._skip = min((1 << self._in_vain) - 1, _MOST_SKIPPED)
            self._is_holding = False
        self._until = 0.0
        return 0.0
