"""Tells observers of finished requests, off the requests' path."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence

import structlog

from modelport.contract.extension import Observer, RequestRecord

__all__ = ["ObserverQueue"]

_log = structlog.get_logger("modelport.serving")


class ObserverQueue:
    """A bounded queue and the one thread that empties it, started with the first record.

    Args:
        observers: In the order in which they are told.
        dropped: Called, on the event loop, for each record that found the queue full.
        bound: Most records that wait.
    """

    def __init__(self, observers: Sequence[Observer], dropped: Callable[[], None], bound: int = 1024) -> None:
        self._observers = list(observers)
        self._dropped = dropped
        self._records: queue.Queue[RequestRecord | None] = queue.Queue(bound)
        self._thread: threading.Thread | None = None

    @property
    def is_wanted(self) -> bool:
        """Whether anybody observes."""
        return bool(self._observers)

    def put(self, record: RequestRecord) -> None:
        """Hands a record over, or drops it and counts that; never waits."""
        if not self._observers:
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._tell, name="modelport-observers", daemon=True)
            self._thread.start()
        try:
            self._records.put_nowait(record)
        except queue.Full:
            self._dropped()

    def close(self, timeout_s: float = 5.0) -> None:
        """Lets what is queued be told, for at most `timeout_s`."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        try:
            self._records.put(None, timeout=timeout_s)
        except queue.Full:
            return  # an observer hangs; the thread is a daemon and ends with the process
        thread.join(timeout_s)

    def _tell(self) -> None:
        while (record := self._records.get()) is not None:
            for observer in self._observers:
                try:
                    observer.observe(record)
                except Exception:
                    _log.exception("observer failed", observer=getattr(observer, "name", type(observer).__name__))
