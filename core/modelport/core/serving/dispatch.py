"""The way of one request: a ticket, a deployment, an answer, and the books."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from modelport.contract.errors import Cancelled, DeadlineExceeded, ModelportError
from modelport.contract.executor import ResultPart
from modelport.contract.extension import RequestRecord
from modelport.contract.reply import Options, Reply, Timings, Usage
from modelport.contract.task import Task
from modelport.core.serving.admission import weigh
from modelport.core.serving.clock import Clock, Timer
from modelport.core.serving.departure import Departure
from modelport.core.serving.deployment import Deployment
from modelport.core.serving.events import Events
from modelport.core.serving.learner import Learner
from modelport.core.serving.observers import ObserverQueue
from modelport.core.serving.stream import Arrivals, Stream
from modelport.core.serving.ticket import Ticket

__all__ = ["Dispatcher"]

_NO_USAGE, _NO_TIMINGS = Usage(), Timings()


class Dispatcher:
    """Sends requests to deployments.

    Args:
        clock: The time.
        events: What is reported.
        observers: Who is told of finished requests.
        request_s: Deadline of requests that name none; 0 is none.
        learner: Told how each request ended.
    """

    def __init__(self, clock: Clock, events: Events, observers: ObserverQueue, request_s: float, learner: Learner) -> None:
        self._clock = clock
        self._events = events
        self._observers = observers
        self._request_s = request_s
        self._learner = learner
        self._ids = itertools.count(1)

    async def run(
        self,
        deployment: Deployment,
        task: Task[Any, Any, Any],
        request: msgspec.Struct,
        caller: str,
        scope: Mapping[str, Any] | None,
        options: Options,
    ) -> Reply[Any]:
        """Answers one request. Cancelling it ends the request."""
        journey = self._begin(deployment, task, request, caller, scope, options, None)
        try:
            outcome = await journey.ticket.outcome
        except BaseException:
            journey.leave()
            raise
        journey.finish()
        if isinstance(outcome, ModelportError):
            raise outcome
        return Reply(result=outcome.result, model=deployment.job.model, usage=outcome.usage, timings=outcome.timings)

    async def stream(
        self,
        deployment: Deployment,
        task: Task[Any, Any, Any],
        request: msgspec.Struct,
        caller: str,
        scope: Mapping[str, Any] | None,
        options: Options,
    ) -> Stream:
        """Starts a streamed answer; returns when its first delta is there."""
        arrivals = Arrivals(task)
        journey = self._begin(deployment, task, request, caller, scope, options, arrivals)
        stream = Stream(deployment.job.model, arrivals, journey.leave)
        journey.stream = weakref.ref(stream)  # one that is dropped unread must be collected, which cancels it
        # what ends the ticket closes the books, whether or not anybody reads on
        journey.ticket.outcome.add_done_callback(lambda _: journey.finish())
        try:
            await arrivals.first()
        except BaseException:
            await stream.aclose()
            raise
        return stream

    def deadline_s(self, options: Options) -> float | None:
        """Seconds that a request has, if its time is bounded."""
        return options.deadline_s if options.deadline_s is not None else self._request_s or None

    def _begin(
        self,
        deployment: Deployment,
        task: Task[Any, Any, Any],
        request: msgspec.Struct,
        caller: str,
        scope: Mapping[str, Any] | None,
        options: Options,
        arrivals: Arrivals | None,
    ) -> _Journey:
        now = self._clock.now()
        deadline_s = self.deadline_s(options)
        ticket = Ticket(
            next(self._ids),
            task.name,
            request,
            options,
            size=weigh(request),
            now=now,
            deadline=None if deadline_s is None else now + deadline_s,
            arrivals=arrivals,
        )
        model = deployment.job.model
        try:
            if deadline_s is not None and deadline_s <= 0:
                raise DeadlineExceeded("The request's deadline had passed when it arrived. Give it more time.")
            deployment.submit(ticket)
        except ModelportError as error:
            self._events.request_rejected(model, error.kind)
            raise
        self._events.request_started(model, task.name)
        return _Journey(self, deployment, ticket, caller, scope, deadline_s)

    def record(self, deployment: Deployment, ticket: Ticket, caller: str) -> tuple[Usage, Timings]:
        """Closes the books on a settled ticket; returns what the caller may know of it."""
        outcome = ticket.outcome.result()
        usage, timings = (outcome.usage, outcome.timings) if isinstance(outcome, ResultPart) else (_NO_USAGE, _NO_TIMINGS)
        status = "ok" if isinstance(outcome, ResultPart) else outcome.kind
        total_s = self._clock.now() - ticket.submitted
        model = deployment.job.model
        self._events.request_finished(model, ticket.task, ticket.backend, status, total_s, usage, timings)
        self._learner.finished(deployment.job, ticket, caller, status, usage, timings)
        if self._observers.is_wanted:
            self._observers.put(
                RequestRecord(
                    request_id=ticket.options.request_id,
                    principal=caller,
                    model=model,
                    task=ticket.task,
                    backend=ticket.backend,
                    status=status,
                    usage=usage,
                    timings=timings,
                    total_s=total_s,
                )
            )
        return usage, timings

    def deadline_timer(self, delay_s: float, callback: Callable[[], None]) -> Timer:
        """A timer of the dispatcher's clock."""
        return self._clock.later(delay_s, callback)


class _Journey:
    """One admitted request: the ticket, and all that must be taken back when it is over."""

    __slots__ = ("_caller", "_departure", "_deployment", "_dispatcher", "_is_over", "_timer", "stream", "ticket")

    def __init__(
        self,
        dispatcher: Dispatcher,
        deployment: Deployment,
        ticket: Ticket,
        caller: str,
        scope: Mapping[str, Any] | None,
        deadline_s: float | None,
    ) -> None:
        self.ticket = ticket
        self.stream: weakref.ref[Stream] | None = None
        self._dispatcher = dispatcher
        self._deployment = deployment
        self._caller = caller
        self._is_over = False
        self._departure = Departure(scope, self._gone)
        self._timer = dispatcher.deadline_timer(deadline_s, self._late) if deadline_s is not None else None

    def leave(self) -> None:
        """The caller wants nothing more of it."""
        self._deployment.cancel(self.ticket, Cancelled("The request was cancelled: its caller left or asked to stop."))
        self.finish()

    def finish(self) -> None:
        """Closes the books. Idempotent."""
        if self._is_over:
            return
        self._is_over = True
        self._departure.close()
        if self._timer is not None:
            self._timer.cancel()
        usage, timings = self._dispatcher.record(self._deployment, self.ticket, self._caller)
        stream = self.stream() if self.stream is not None else None
        if stream is not None:
            stream.usage, stream.timings = usage, timings

    def _gone(self) -> None:
        self._deployment.cancel(self.ticket, Cancelled("The client closed the connection before the answer was ready."))

    def _late(self) -> None:
        self._deployment.cancel(
            self.ticket,
            DeadlineExceeded("The request's deadline passed before its answer was ready. Give it more time, or ask for less."),
        )
