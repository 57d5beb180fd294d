"""A bounded buffer of deltas for a reader that may be slower than the model."""

from __future__ import annotations

from collections import deque
from typing import Any

from modelport.contract.task import Task

__all__ = ["UNDELIVERED_DELTAS", "DeltaBuffer"]

UNDELIVERED_DELTAS = 64
"""Most deltas of one stream that wait for its reader; beyond, they are merged."""


class DeltaBuffer:
    """Deltas in order of arrival, at most `limit` of them: a full buffer merges what comes into what it has.

    A delta that refuses to be merged with its neighbour belongs to something else of the same answer (another choice), whose
    order among the others does not matter; so a full buffer merges a new delta with the latest one that takes it. Only a
    delta that none takes makes the buffer longer: no more of those exist than the answer has parts.
    """

    def __init__(self, task: Task[Any, Any, Any], limit: int = UNDELIVERED_DELTAS) -> None:
        self._merge = task.merge
        self._limit = limit
        self._deltas: deque[Any] = deque()

    def __len__(self) -> int:
        return len(self._deltas)

    def push(self, delta: Any) -> None:
        """Adds `delta`, or merges it."""
        if len(self._deltas) >= self._limit and self._merge is not None:
            for place in range(len(self._deltas) - 1, -1, -1):
                merged = self._merge(self._deltas[place], delta)
                if merged is not None:
                    self._deltas[place] = merged
                    return
        self._deltas.append(delta)

    def pop(self) -> Any:
        """The oldest delta.

        Raises:
            IndexError: if there is none.
        """
        return self._deltas.popleft()

    def pop_all(self) -> list[Any]:
        """All deltas, oldest first."""
        deltas = list(self._deltas)
        self._deltas.clear()
        return deltas
