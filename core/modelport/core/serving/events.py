"""What the serving room reports while it works; `observe.metrics.Metrics` counts it."""

from __future__ import annotations

from typing import Protocol

from modelport.contract.executor import ReplicaStats
from modelport.contract.reply import Timings, Usage

__all__ = ["Events"]


class Events(Protocol):
    """Called on the event loop, often: each must be quick and must not raise. Models are configured names only."""

    def request_started(self, model: str, task: str) -> None:
        """A request was admitted."""

    def request_finished(
        self, model: str, task: str, backend: str, status: str, total_s: float, usage: Usage, timings: Timings
    ) -> None:
        """An admitted request ended; `status` is `ok` or the error's kind."""

    def request_rejected(self, model: str, kind: str) -> None:
        """A request was refused before it was admitted."""

    def queue(self, model: str, waiting: int, running: int) -> None:
        """How many requests of a model wait for a device, and how many have reached one."""

    def replica_stats(self, model: str, backend: str, stats: ReplicaStats, final: bool = False, replica: str = "") -> None:
        """A heartbeat of the worker `replica`; `final` when no more will come from it."""

    def model_state(self, model: str, state: str) -> None:
        """A model entered a state."""

    def load_finished(self, model: str, backend: str, seconds: float, memory_bytes: int) -> None:
        """A replica is loaded."""

    def worker_died(self, model: str, reason: str) -> None:
        """A worker ended without having been asked to."""

    def device_failed(self, model: str, backend: str) -> None:
        """A device failed a request: out of memory, lost, or NaN."""

    def fell_back(self, model: str, backend: str) -> None:
        """A model was loaded on `backend` because it could not run, or failed again and again, on a better place."""

    def observer_dropped(self) -> None:
        """An observer was too slow and missed a record."""
