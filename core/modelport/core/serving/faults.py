"""What went wrong while a deployment ran, and which places it therefore avoids for a while."""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from modelport.contract.errors import DeviceFailed, ModelportError
from modelport.contract.extension import Candidate
from modelport.core.serving.events import Events
from modelport.core.serving.slot import word_of

__all__ = ["Faults"]

_log = structlog.get_logger("modelport.serving")


class Faults:
    """A place where workers die again and again, or whose device fails one request after the other, is avoided.

    Args:
        model: The model, for logs and metrics.
        events: What is reported.
        most: How many deaths, or failures in a row, are too many.
        window_s: Seconds within which deaths are counted together, and for which a place is avoided.
    """

    def __init__(self, model: str, events: Events, most: int = 3, window_s: float = 300.0) -> None:
        self._model = model
        self._events = events
        self._most = most
        self._window_s = window_s
        self._deaths: dict[str, list[float]] = {}
        self._in_a_row: dict[str, list[int]] = {}
        self._works: set[str] = set()
        self._given_up: dict[str, tuple[float, str]] = {}

    def died(self, candidate: Candidate, cause: ModelportError, now: float) -> None:
        """Notes a worker's death."""
        _log.error("worker died", model=self._model, backend=candidate.backend, cause=cause.message)
        self._events.worker_died(self._model, word_of(cause))
        deaths = self._deaths.setdefault(candidate.place, [])
        deaths[:] = [*(at for at in deaths if now - at < self._window_s), now]

    def failed(self, candidate: Candidate, request: int, cause: DeviceFailed, now: float) -> bool:
        """Notes that the device failed a request; returns whether it is to be left.

        A request may be at fault itself: one that is tried again counts once where others have been answered. So many in a row
        are too many, and so are as many tries of one where nothing has worked yet; a device that is lost is lost.
        """
        _log.warning("device failed", model=self._model, device=candidate.place, cause=cause.message)
        self._events.device_failed(self._model, candidate.backend)
        tries = self._in_a_row.setdefault(candidate.place, [])
        tries.append(request)
        count = len(set(tries)) if candidate.place in self._works else len(tries)
        if count < self._most and type(cause) is not DeviceFailed:
            return False
        del self._in_a_row[candidate.place]
        why = f"its device failed {len(tries)} times in a row, the last with: {cause.message.rstrip('.')}"
        self._given_up[candidate.place] = now, why
        self._works.discard(candidate.place)
        return True

    def answered(self, candidate: Candidate) -> None:
        """Notes that a request was answered: the device works."""
        self._works.add(candidate.place)
        if self._in_a_row:
            self._in_a_row.pop(candidate.place, None)

    def failing(self, now: float) -> dict[str, str]:
        """Places to avoid, with the reason."""
        counts = {place: sum(now - at < self._window_s for at in deaths) for place, deaths in self._deaths.items()}
        dying = {
            place: f"its worker died {count} times within {self._window_s:.0f} s"
            for place, count in counts.items()
            if count >= self._most
        }
        return {place: why for place, (at, why) in self._given_up.items() if now - at < self._window_s} | dying

    def most_tries(self, candidate: Candidate, order: Sequence[Candidate], now: float) -> int:
        """How often devices may fail one request before its caller hears of it: 0 if there is nowhere else to go."""
        avoided = {candidate.place, *self.failing(now)}
        places = sum(other.place not in avoided for other in order)
        return self._most * (places + 1) if places else 0
