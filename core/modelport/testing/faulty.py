"""A backend that goes wrong as its options say: for tests of what a server does then.

Options of `fake-faulty`: `fault` is one of `FAULTS`; `after` is how many batches go well before; `room` is how many items fit
into a batch, for `oom`.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from typing import ClassVar

import numpy as np

from modelport.contract.array import Array
from modelport.contract.backend import LoadContext, Progress
from modelport.contract.errors import ConfigurationError, DeviceFailed
from modelport.contract.runner import Runner
from modelport.testing.fakes import NumpyBackend, NumpyRunner

__all__ = ["FAULTS", "FaultyBackend"]

FAULTS = ("none", "refuse", "oom", "nan", "lost", "hang", "die", "lie")
"""Refuses to load; has no memory for a batch; computes NaN; is lost; never comes back; takes its process along; takes more
memory than its verdict said."""

_LIE_BYTES = 96 << 20


class FaultyRunner(NumpyRunner):
    """Does as its context's options say."""

    def __init__(self, context: LoadContext, backend: FaultyBackend) -> None:
        super().__init__(context, backend.limits)
        options = context.options
        self._fault: str = options.get("fault", "none")
        self._good = int(options.get("after", 0))
        self._room = int(options.get("room", 0))
        self._ballast = np.ones(_LIE_BYTES // 8) if self._fault == "lie" else None

    def submit(self, entry: str, batch: Mapping[str, Array]) -> Future[dict[str, Array]]:
        """As NumPy, until the batches that go well are over."""
        self._good -= 1
        if self._good >= 0:
            return super().submit(entry, batch)
        future: Future[dict[str, Array]] = Future()
        match self._fault:
            case "oom" if next(iter(batch.values())).shape[0] > self._room:
                future.set_exception(MemoryError(f"the device has room for {self._room} items"))
            case "lost":
                future.set_exception(DeviceFailed("The device has fallen off the bus."))
            case "nan":
                outputs = super().submit(entry, batch).result()
                future.set_result({name: np.full_like(array, np.nan) for name, array in outputs.items()})
            case "hang":
                threading.Event().wait()
            case "die":
                os.abort()
            case _:
                return super().submit(entry, batch)
        return future


class FaultyBackend(NumpyBackend):
    """Would be the best place of all."""

    name: ClassVar[str] = "fake-faulty"
    rank: ClassVar[int] = 1

    def load(self, context: LoadContext, progress: Progress) -> Runner:
        if context.options.get("fault") == "refuse":
            raise ConfigurationError("The device refuses to hold any model today.")
        return FaultyRunner(context, self)
