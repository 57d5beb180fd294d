"""Outputs kept between requests, bounded in bytes."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from cachetools import LRUCache

from modelport.contract.array import Array

__all__ = ["OutputCache", "size_of"]

Outputs = dict[str, Array]


class OutputCache:
    """The outputs of forwards by (entry, key); the least recently used go first. Used on the event loop only."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._outputs: LRUCache[tuple[str, str], Outputs] = LRUCache(limit_bytes, getsizeof=_size_of_outputs)

    @property
    def used_bytes(self) -> int:
        """Bytes held now."""
        return int(self._outputs.currsize)

    def get(self, entry: str, key: str) -> Outputs | None:
        """The outputs kept under `key`, whose arrays must not be written to."""
        kept = self._outputs.get((entry, key))
        return None if kept is None else dict(kept)

    def put(self, entry: str, key: str, outputs: Mapping[str, Array]) -> None:
        """Keeps `outputs`, unless they alone are over the limit."""
        kept = {name: _own(array) for name, array in outputs.items()}
        if _size_of_outputs(kept) <= self._limit_bytes:
            self._outputs[entry, key] = kept

    def clear(self) -> None:
        """Drops everything."""
        self._outputs.clear()


def size_of(array: Array) -> int:
    """The bytes of an array, on the host or on a device."""
    if isinstance(array, np.ndarray):
        return array.nbytes
    width = 2 if array.dtype == "bfloat16" else np.dtype(array.dtype).itemsize
    return math.prod(array.shape) * width


def _size_of_outputs(outputs: Mapping[str, Array]) -> int:
    return sum(size_of(array) for array in outputs.values()) or 1


def _own(array: Array) -> Array:
    """A row is a view that keeps its whole batch alive: what is kept is a copy of the row, which nobody may change."""
    if not isinstance(array, np.ndarray):
        return array
    copy = array.copy()
    copy.flags.writeable = False
    return copy
