"""A slot: one replica of a deployment, and the tickets aboard it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Protocol

from modelport.contract.errors import DeviceFailed, ModelportError
from modelport.contract.executor import Replica, ReplicaReady, ReplicaStats
from modelport.contract.extension import Candidate
from modelport.core.serving.clock import Clock
from modelport.core.serving.ticket import Ticket

__all__ = ["Slot", "SlotOwner", "word_of"]


class SlotOwner(Protocol):
    """The deployment, as its slots see it."""

    def slot_started(self, slot: Slot, ticket: Ticket) -> None:
        """A ticket has reached the device."""

    def slot_ended(self, slot: Slot, ticket: Ticket, answered: bool) -> None:
        """A ticket is no longer aboard."""

    def slot_failed(self, slot: Slot, ticket: Ticket, error: DeviceFailed) -> bool:
        """The device failed a ticket, which is no longer aboard; returns whether it is tried again."""

    def slot_died(self, slot: Slot, cause: ModelportError, unstarted: list[int]) -> None:
        """The worker is gone; its tickets are still in `slot.aboard`."""

    def slot_progress(self, slot: Slot, what: str, fraction: float) -> None:
        """The load goes on."""

    def slot_stats(self, slot: Slot, stats: ReplicaStats, final: bool) -> None:
        """A heartbeat."""


class Slot:
    """Carries tickets to one replica. It is what the replica reports to.

    Attributes:
        name: Tells the replicas of a model apart, in metrics.
        candidate: Where it runs.
        place: Its devices' ids.
        memory: What it is charged for, by device id.
        ready: What the loaded replica said of itself, once it is loaded.
        aboard: Tickets that the replica holds, by id; settled ones included until it lets go of them.
    """

    def __init__(self, name: str, candidate: Candidate, owner: SlotOwner, clock: Clock, memory: Mapping[str, int]) -> None:
        self.name = name
        self.candidate = candidate
        self.place = candidate.place
        self._is_emulated = any(device.properties.get("emulated") for device in candidate.devices)
        self.memory = dict(memory)
        self.ready = ReplicaReady()
        self.aboard: dict[int, Ticket] = {}
        self.is_gone = False
        self._owner = owner
        self._clock = clock
        self._replica: Replica | None = None
        self._stats: ReplicaStats | None = None

    async def start(self, make: Callable[[Slot], Replica]) -> ReplicaReady:
        """Makes the replica and loads it. A failed one is stopped before the error goes on."""
        try:
            self._replica = make(self)
            self.ready = await self._replica.start()
        except BaseException:
            self.is_gone = True
            if self._replica is not None:
                with contextlib.suppress(ModelportError):
                    await self._replica.stop()
            raise
        return self.ready

    def send(self, ticket: Ticket) -> None:
        """Takes a ticket aboard."""
        assert self._replica is not None
        self.aboard[ticket.id] = ticket
        ticket.carrier = self
        ticket.backend, ticket.place, ticket.is_emulated = self.candidate.backend, self.place, self._is_emulated
        self._replica.call(ticket.call(self._clock.now()), ticket.receive)

    def cancel(self, ticket: Ticket) -> None:
        """Tells the replica that nobody waits any more; the ticket stays aboard until the replica lets go of it."""
        if self._replica is not None and ticket.id in self.aboard:
            self._replica.cancel(ticket.id)

    async def drain(self) -> None:
        """Returns when nothing is aboard."""
        if self._replica is not None and not self.is_gone:
            await self._replica.drain()

    async def stop(self) -> int:
        """Ends the replica; returns the bytes that were measured to come back."""
        self.is_gone = True
        freed = await self._replica.stop() if self._replica is not None else 0
        self._last_stats()
        return freed

    # what tickets report

    def started(self, ticket: Ticket) -> None:
        self._owner.slot_started(self, ticket)

    def ended(self, ticket: Ticket, answered: bool) -> None:
        if self.aboard.pop(ticket.id, None) is not None:
            self._owner.slot_ended(self, ticket, answered)

    def failed(self, ticket: Ticket, error: DeviceFailed) -> bool:
        if self.aboard.pop(ticket.id, None) is None:
            return False
        ticket.carrier = None
        if not (again := self._owner.slot_failed(self, ticket, error)):
            self.aboard[ticket.id], ticket.carrier = ticket, self  # it ends as any other does
        return again

    def drop(self, ticket: Ticket) -> None:
        self.cancel(ticket)

    # what the replica reports

    def progress(self, what: str, fraction: float) -> None:
        self._owner.slot_progress(self, what, fraction)

    def stats(self, stats: ReplicaStats) -> None:
        self._stats = stats
        self._owner.slot_stats(self, stats, False)

    def died(self, cause: ModelportError, unstarted: list[int]) -> None:
        if not self.is_gone:
            self.is_gone = True
            self._owner.slot_died(self, cause, unstarted)
            self._last_stats()

    def _last_stats(self) -> None:
        stats, self._stats = self._stats, None
        if stats is not None:
            self._owner.slot_stats(self, stats, True)


def word_of(cause: ModelportError) -> str:
    """One of a few words for a metric's label: the message itself is free text."""
    text = cause.message.lower()
    return next((word for word in ("stuck", "memory", "signal", "heartbeat") if word in text), "exit")
