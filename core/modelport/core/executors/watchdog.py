"""Tells a worker that is hung from one that is busy. Pure: readings in, a verdict out."""

from __future__ import annotations

from modelport.contract.executor import ReplicaSpec, ReplicaStats

__all__ = ["Watchdog"]

_BUSY_MARGIN = 1.25


class Watchdog:
    """Judges a loading worker by its silence, a loaded one by heartbeats, device progress and memory.

    All times are seconds on one clock. `fault` says what is wrong, or an empty text.
    """

    def __init__(self, spec: ReplicaSpec, now: float) -> None:
        self._spec = spec
        self._is_loaded = False
        self._heard = now
        self._doing = "starting"
        self._moved = now
        self._progress = -1
        self._is_busy = False
        self._resident_bytes = 0

    def loading(self, what: str, now: float) -> None:
        """The load goes on."""
        self._heard, self._doing = now, what

    def loaded(self, now: float) -> None:
        """The load is done."""
        self._is_loaded, self._heard, self._moved = True, now, now

    def heartbeat(self, stats: ReplicaStats, now: float) -> None:
        """A heartbeat came."""
        self._heard = now
        self._resident_bytes = stats.resident_bytes
        is_busy = stats.running > 0 or stats.waiting > 0
        if stats.progress != self._progress or not is_busy or not self._is_busy:
            self._moved = now
        self._progress, self._is_busy = stats.progress, is_busy

    def fault(self, now: float, open_calls: int) -> str:
        """What is wrong with the worker, as the end of a sentence; empty if nothing is."""
        spec = self._spec
        if not self._is_loaded:
            silence = now - self._heard
            if silence > spec.load_stall_s:
                return f"its load stalled: no progress for {silence:.0f} s while {self._doing}"
            return ""
        if now - self._heard > spec.stuck_s + spec.heartbeat_s:
            return f"it hung: no sign of life for {now - self._heard:.0f} s"
        if self._is_busy and now - self._moved > spec.stuck_s:
            return f"it is stuck: its device made no progress for {now - self._moved:.0f} s"
        limit = spec.memory_limit_bytes
        if limit is not None:
            # An idle worker goes at once; a busy one gets some room, so that running requests may end.
            allowed = limit if open_calls == 0 else limit * _BUSY_MARGIN
            if self._resident_bytes > allowed:
                return f"it held {self._resident_bytes:,} bytes of memory, over its limit of {limit:,}"
        return ""
