"""The requests of one deployment: those that wait in the line, those aboard its replicas, and the counting of both."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import structlog

from modelport.contract.errors import InvalidRequest, ModelFailed, ModelportError
from modelport.core.serving.admission import Admission
from modelport.core.serving.clock import Clock
from modelport.core.serving.events import Events
from modelport.core.serving.line import Line
from modelport.core.serving.slot import Slot
from modelport.core.serving.ticket import Ticket
from modelport.core.serving.waiters import Waiters

__all__ = ["Traffic"]

_log = structlog.get_logger("modelport.serving")
_MOST_DEATHS = 2


class Traffic:
    """Moves tickets between the line and the slots; knows nothing of states.

    Args:
        model: The model, for messages and metrics.
        slots: The deployment's own list of live slots.
        admission: The model's counts.
        clock: The time.
        events: What is reported.
        longest_wait_s: Seconds in the line after which a ticket is refused.
        late: Called with it then, to refuse it.
    """

    def __init__(
        self,
        model: str,
        slots: Sequence[Slot],
        *,
        admission: Admission,
        clock: Clock,
        events: Events,
        longest_wait_s: float,
        late: Callable[[Ticket], None],
    ) -> None:
        self._model = model
        self._slots = slots
        self._admission = admission
        self._clock = clock
        self._events = events
        self._longest_wait_s = longest_wait_s
        self._late = late
        self._line = Line()
        self._idlers = Waiters()

    @property
    def is_waiting(self) -> bool:
        """Whether anything is in the line."""
        return bool(self._line)

    @property
    def is_aboard(self) -> bool:
        """Whether anything is aboard a replica."""
        return any(slot.aboard for slot in self._slots)

    def admit(self, ticket: Ticket) -> None:
        """Counts a new ticket; raises `Overloaded` if the queue is full."""
        self._admission.admit(ticket.size, ticket.submitted)

    def send(self, ticket: Ticket) -> None:
        """Sends a ticket to the slot that has the least to do."""
        slots = self._slots
        slot = slots[0] if len(slots) == 1 else min(slots, key=lambda slot: len(slot.aboard))
        if ticket.timer is not None:
            ticket.timer.cancel()
            ticket.timer = None
        try:
            slot.send(ticket)
        except Exception as error:  # a request that cannot even be sent harms nobody else
            slot.aboard.pop(ticket.id, None)
            ticket.carrier = None
            if isinstance(error, RecursionError):
                error = InvalidRequest("The request is nested too deeply.")
            elif not isinstance(error, ModelportError):
                _log.exception("send failed", model=self._model)
                error = ModelFailed("The request could not be sent to the model; the server's log has the details.")
            ticket.settle(error)
            self.leave(ticket)

    def wait(self, ticket: Ticket) -> None:
        """Puts a ticket into the line."""
        self._line.push(ticket)
        ticket.timer = self._clock.later(self._longest_wait_s, lambda: self._late(ticket))

    def flush(self) -> None:
        """Sends all that wait."""
        while self._slots and (ticket := self._line.pop()) is not None:
            self.send(ticket)
        self.report()

    def cancel(self, ticket: Ticket, error: ModelportError) -> bool:
        """Ends a ticket for its caller; returns whether that emptied the line. Its place aboard is free when the replica
        has let go of it."""
        ticket.settle(error)
        if self._line.remove(ticket):
            self.leave(ticket)
            return not self._line
        if ticket.carrier is not None:
            ticket.carrier.drop(ticket)
        return False

    def fail_waiting(self, error: ModelportError) -> None:
        """Ends all that wait."""
        while (ticket := self._line.pop()) is not None:
            ticket.settle(error)
            self.leave(ticket)

    def fail_aboard(self, error: ModelportError) -> None:
        """Ends all that is aboard, for its callers."""
        for slot in self._slots:
            for ticket in list(slot.aboard.values()):
                ticket.settle(error)
                slot.cancel(ticket)

    def rescue(self, slot: Slot, cause: ModelportError, unstarted: Sequence[int]) -> list[Ticket]:
        """Takes the tickets off a dead slot: returns those to be tried once more, and fails the others. One that was aboard
        two deaths is refused: it may be the reason of them."""
        again, ids = [], set(unstarted)
        tickets = list(slot.aboard.values())
        slot.aboard.clear()
        for ticket in tickets:
            ticket.carrier = None
            if ticket.settled or ticket.started or ticket.id not in ids:
                ticket.settle(cause)
                self.leave(ticket)
                continue
            ticket.deaths += 1
            if ticket.deaths < _MOST_DEATHS:
                again.append(ticket)
                continue
            held = f"{_MOST_DEATHS} workers died while they held this request; it is not tried again."
            ticket.settle(ModelFailed(f"{held} The last cause: {cause.message}"))
            self.leave(ticket)
        return again

    def started(self, ticket: Ticket) -> None:
        """A ticket has reached the device."""
        self._admission.start(ticket.size, self._clock.now())
        self.report()

    def leave(self, ticket: Ticket, answered: bool = False) -> None:
        """A ticket is neither in the line nor aboard any more."""
        self._admission.leave(ticket.size, self._clock.now(), started=ticket.started, served=answered)
        self.report()
        if self._idlers and not self.is_waiting and not self.is_aboard:
            self._idlers.wake()

    async def idle(self) -> None:
        """Returns when nothing waits and nothing is aboard."""
        while self.is_waiting or self.is_aboard:
            await self._idlers.wait()

    def report(self) -> None:
        """Tells the metrics how many wait and run."""
        self._events.queue(self._model, self._admission.waiting, self._admission.running)
