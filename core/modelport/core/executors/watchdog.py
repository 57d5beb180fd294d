"""Tells a worker that is hung from one that is busy. Pure: readings in, a verdict out."""

from __future__ import annotations

from modelport.contract.executor import ReplicaSpec, ReplicaStats

__all__ = ["Watchdog"]

_BUSY_MARGIN = 1.25


class _Mover:
    """Something that has work or none, and gets on with it or not."""

    def __init__(self, name: str, now: float) -> None:
        self.name = name
        self._moved = now
        self._progress = -1
        self._is_busy = False

    def reading(self, is_busy: bool, progress: int, now: float) -> None:
        if progress != self._progress or not is_busy or not self._is_busy:
            self._moved = now
        self._progress, self._is_busy = progress, is_busy

    def stuck_s(self, now: float) -> float:
        return now - self._moved if self._is_busy else 0.0


class Watchdog:
    """Judges a loading worker by its silence, a loaded one by heartbeats, the progress of device and CPU pool, and memory.

    All times are seconds on one clock. `fault` says what is wrong, or an empty text.
    """

    def __init__(self, spec: ReplicaSpec, now: float) -> None:
        self._spec = spec
        self._is_loaded = False
        self._heard = now
        self._doing = "starting"
        self._device, self._pool = _Mover("device", now), _Mover("CPU pool", now)
        self._resident_bytes = 0

    def loading(self, what: str, now: float) -> None:
        """The load goes on."""
        self._heard, self._doing = now, what

    def loaded(self, now: float) -> None:
        """The load is done."""
        self._is_loaded, self._heard = True, now

    def heartbeat(self, stats: ReplicaStats, now: float) -> None:
        """A heartbeat came."""
        self._heard = now
        self._resident_bytes = stats.resident_bytes
        self._device.reading(stats.running > 0 or stats.waiting > 0, stats.progress, now)
        self._pool.reading(stats.preparing > 0, stats.prepared, now)

    def fault(self, now: float, open_calls: int) -> str:
        """What is wrong with the worker, as the end of a sentence; empty if nothing is."""
        spec = self._spec
        if not self._is_loaded:
            silence = now - self._heard
            if 0 < spec.load_stall_s < silence:
                return f"its load stalled: no progress for {silence:.0f} s while {self._doing}"
            return ""
        if spec.stuck_s > 0:
            if now - self._heard > spec.stuck_s + spec.heartbeat_s:
                return f"it hung: no sign of life for {now - self._heard:.0f} s"
            for mover in (self._device, self._pool):
                if mover.stuck_s(now) > spec.stuck_s:
                    return f"it is stuck: its {mover.name} made no progress for {mover.stuck_s(now):.0f} s"
        limit = spec.memory_limit_bytes
        if limit is not None:
            # An idle worker goes at once; a busy one gets some room, so that running requests may end.
            allowed = limit if open_calls == 0 else limit * _BUSY_MARGIN
            if self._resident_bytes > allowed:
                return f"it held {self._resident_bytes:,} bytes of memory, over its limit of {limit:,}"
        return ""
