"""The line of tickets that wait in the server for a replica."""

from __future__ import annotations

import heapq
import itertools

from modelport.core.serving.ticket import Ticket

__all__ = ["Line"]


class Line:
    """Tickets by priority, then by age. Settled ones (cancelled, out of time) are skipped."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Ticket]] = []
        self._order = itertools.count()
        self._members: set[int] = set()

    def __len__(self) -> int:
        return len(self._members)

    def __contains__(self, ticket: Ticket) -> bool:
        return ticket.id in self._members

    def push(self, ticket: Ticket) -> None:
        """Adds a ticket."""
        self._members.add(ticket.id)
        heapq.heappush(self._heap, (-ticket.options.priority, next(self._order), ticket))

    def remove(self, ticket: Ticket) -> bool:
        """Takes a ticket out, wherever it stands; returns whether it was there."""
        if ticket.id not in self._members:
            return False
        self._members.discard(ticket.id)
        if len(self._heap) > 2 * len(self._members) + 64:
            self._heap = [entry for entry in self._heap if entry[2].id in self._members]
            heapq.heapify(self._heap)
        return True

    def pop(self) -> Ticket | None:
        """The next ticket, or None."""
        while self._heap:
            ticket = heapq.heappop(self._heap)[2]
            if ticket.id in self._members:
                self._members.discard(ticket.id)
                return ticket
        return None
