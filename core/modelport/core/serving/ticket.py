"""A ticket: one admitted request on its way through a deployment."""

from __future__ import annotations

import asyncio
from typing import Protocol

import msgspec

from modelport.contract.errors import DeviceFailed, ModelportError, error_from_wire
from modelport.contract.executor import Call, DeltaPart, FailedPart, Part, ResultPart, StartedPart
from modelport.contract.reply import Options
from modelport.core.serving.clock import Timer
from modelport.core.serving.stream import Arrivals

__all__ = ["Carrier", "Ticket"]


class Carrier(Protocol):
    """Who took a ticket to a replica."""

    def started(self, ticket: Ticket) -> None:
        """It has reached the device."""

    def ended(self, ticket: Ticket, answered: bool) -> None:
        """The replica has let go of it; `answered`: with a result."""

    def failed(self, ticket: Ticket, error: DeviceFailed) -> bool:
        """The replica has let go of it because its device failed; returns whether it is tried again."""

    def drop(self, ticket: Ticket) -> None:
        """Nobody wants its answer any more."""


class Ticket:
    """What is asked, how far it got, and where its answer goes.

    A ticket is *settled* when the caller has its answer or its error, and *ended* when no replica holds it any more. A
    cancelled one is settled at once and ended when the device lets go of it.

    Attributes:
        outcome: Done when settled: the last part, or the error.
        backend: Where it ran last, for metrics.
        place: The device or devices it ran on last.
        is_emulated: Whether how long it took there says nothing.
        deaths: How many workers died with it aboard.
        failures: How many times a device failed it.
        has_streamed: Whether the caller has had a part of its answer.
        carrier: Who took it to a replica, while one holds it.
    """

    __slots__ = (
        "arrivals",
        "backend",
        "carrier",
        "deadline",
        "deaths",
        "failures",
        "has_streamed",
        "id",
        "is_emulated",
        "options",
        "outcome",
        "place",
        "request",
        "size",
        "started",
        "submitted",
        "task",
        "timer",
    )

    def __init__(
        self,
        id: int,
        task: str,
        request: msgspec.Struct,
        options: Options,
        *,
        size: int,
        now: float,
        deadline: float | None,
        arrivals: Arrivals | None,
    ) -> None:
        self.id = id
        self.task = task
        self.request = request
        self.options = options
        self.size = size
        self.submitted = now
        self.deadline = deadline
        self.arrivals = arrivals
        self.outcome: asyncio.Future[ResultPart | ModelportError] = asyncio.get_running_loop().create_future()
        self.started = False
        self.backend = self.place = ""
        self.is_emulated = False
        self.deaths = self.failures = 0
        self.has_streamed = False
        self.timer: Timer | None = None
        self.carrier: Carrier | None = None

    @property
    def settled(self) -> bool:
        """Whether the caller has its answer or its error."""
        return self.outcome.done()

    def call(self, now: float) -> Call:
        """What to send to a replica now."""
        return Call(
            id=self.id,
            task=self.task,
            request=self.request,
            stream=self.arrivals is not None,
            deadline_s=None if self.deadline is None else max(self.deadline - now, 0.0),
            priority=self.options.priority,
            request_id=self.options.request_id,
            size=self.size,
        )

    def receive(self, part: Part) -> None:
        """Takes a part from the replica; on the event loop, in order."""
        if isinstance(part, DeltaPart):
            if self.arrivals is not None:
                self.has_streamed = True
                try:
                    self.arrivals.put(part.delta)
                except ModelportError as error:
                    self.settle(error)
                    if self.carrier is not None:
                        self.carrier.drop(self)
        elif isinstance(part, StartedPart):
            if not self.started:
                self.started = True
                if self.carrier is not None:
                    self.carrier.started(self)
        elif isinstance(part, ResultPart):
            self.settle(part)
            self._end(True)
        elif isinstance(part, FailedPart):
            failure = error_from_wire(part.error)
            if isinstance(failure, DeviceFailed) and self.carrier is not None and self.carrier.failed(self, failure):
                return
            self.settle(failure)
            self._end(False)

    def settle(self, outcome: ResultPart | ModelportError) -> None:
        """Gives the caller its answer or its error; the first one counts."""
        if self.outcome.done():
            return
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        self.outcome.set_result(outcome)
        if self.arrivals is not None:
            self.arrivals.end(outcome if isinstance(outcome, ModelportError) else None)

    def _end(self, answered: bool) -> None:
        carrier, self.carrier = self.carrier, None
        if carrier is not None:
            carrier.ended(self, answered)
