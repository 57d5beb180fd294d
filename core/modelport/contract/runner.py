"""A loaded program on devices: what a backend hands to the worker."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from typing import Protocol

import msgspec
import numpy as np

from modelport.contract.array import Array
from modelport.contract.generate import Engine

__all__ = ["Limits", "Runner"]


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What a runner can take. The batcher, `collate` and admission obey it.

    Args:
        max_items: Most items in a batch.
        max_tokens: Most padded tokens in a batch (items × longest).
        in_flight: How many submits may be open at once; 1 on a backend that computes in the calling thread.
        shapes: `None`, or the (items, length) buckets that `collate` must pad to, ascending; padded rows are dropped by
            `split`.
        reductions: Names of the steps (`pool`, `normalize`, …) that run in the backend; the core does the others.
        params: Names of the sampling parameters and features that its engines honour (see `GenerateRequest.needs`).
        max_length: Most tokens of one sequence that fit, prompt and output together; `None` if only the model limits it.
        linger: Share of a batch's time for which the next one may wait for callers who were just answered: for devices that are
            the processor, which requests need too.
        holds_gil: Whether a step of its engines keeps all other Python threads of the process waiting. What a step brought is
            then sent before the next one begins, rather than one step late.
    """

    max_items: int = 32
    max_tokens: int = 16_384
    in_flight: int = 1
    shapes: tuple[tuple[int, int], ...] | None = None
    reductions: frozenset[str] = frozenset()
    params: frozenset[str] = frozenset()
    max_length: int | None = None
    linger: float = 0.0
    holds_gil: bool = False


class Runner(Protocol):
    """One program with its weights in memory. Every method is called by one device thread, and by no other."""

    @property
    def limits(self) -> Limits: ...

    @property
    def facts(self) -> Mapping[str, str]:
        """What the placement record should say: the dtype in use, the converter, where sampling runs.

        `device_bytes` says how much the load took of a device that has memory of its own; without it, a load is charged with what
        it took of the host's.
        """

    def submit(self, entry: str, batch: Mapping[str, Array]) -> Future[dict[str, Array]]:
        """Starts one batch; arrays have the batch axis first, padded as the entry's specs say.

        The future's result has one array per wanted output, reduced as far as `limits.reductions` goes. It may be done on
        return. An exception in the future fails these items and no others: a `MemoryError` says that the batch does not fit,
        and it is tried again in halves; a `DeviceFailed` that the device is at fault, and the requests may go elsewhere.
        """

    def engine(self, entry: str) -> Engine:
        """The engine of a `Generate` entry, made at the first call and the same ever after."""

    def buffer(self, shape: tuple[int, ...], dtype: str) -> np.ndarray:
        """Host memory for `collate` to fill (pinned where that pays); plain `np.empty` is a right answer."""

    def close(self) -> None:
        """Frees everything. Idempotent. No call follows it."""
