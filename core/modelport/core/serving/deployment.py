"""A deployment: one program of one model, its state, its replicas, and the requests for it.

States: `declared → loading → ready ⇄ busy → draining → unloaded`, and `failed` until a later request may try again. A request
that finds it ready goes straight to a replica; any other waits in the line, which also starts the load.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Literal

import structlog

from modelport.contract.errors import DeviceFailed, ModelFailed, ModelportError, Unavailable
from modelport.contract.executor import ReplicaStats
from modelport.contract.extension import Candidate
from modelport.core.config.settings import LimitSettings
from modelport.core.placement.record import PlacementRecord
from modelport.core.serving.admission import Admission
from modelport.core.serving.clock import Clock
from modelport.core.serving.events import Events
from modelport.core.serving.faults import Faults
from modelport.core.serving.job import Job, Plan, Planner
from modelport.core.serving.keeper import Keeper, NoLongerWanted
from modelport.core.serving.loading import Loading
from modelport.core.serving.refusals import load_failed, not_yet, shutting_down
from modelport.core.serving.replicas import Replicas
from modelport.core.serving.slot import Slot
from modelport.core.serving.ticket import Ticket
from modelport.core.serving.traffic import Traffic
from modelport.core.serving.waiters import Waiters

__all__ = ["Deployment"]

_log = structlog.get_logger("modelport.serving")


class Deployment:
    """One loaded program, or one to be.

    Args:
        job: What it serves.
        limits: Waiting times.
        admission: The model's counts; shared by all deployments of the model.
        planner: Where it may run.
        keeper: Who knows how much room there is.
        clock: The time.
        events: What is reported.
        on_state: Told of every change of state, with the reason.
    """

    def __init__(
        self,
        job: Job,
        *,
        limits: LimitSettings,
        admission: Admission,
        planner: Planner,
        keeper: Keeper,
        clock: Clock,
        events: Events,
        on_state: Callable[[str, str], None],
    ) -> None:
        self.job = job
        self.name = job.name
        self.is_pinned = job.settings.pin
        self._replicas = Replicas(job.model, keeper, self)
        self.slots = self._replicas.slots
        self.record: PlacementRecord | None = None
        self.reason = ""
        self.last_used = clock.now()
        self.ready_since = self.load_s = 0.0
        self._limits = limits
        self._planner = planner
        self._keeper = keeper
        self._clock = clock
        self._events = events
        self._on_state = on_state
        self._loading = Loading(job, planner, keeper, clock, events)
        self._faults = Faults(job.model, events)
        self._state: Literal["declared", "loading", "ready", "draining", "unloaded", "failed"] = "declared"
        self._traffic = Traffic(
            job.model,
            self.slots,
            admission=admission,
            clock=clock,
            events=events,
            longest_wait_s=limits.load_wait_s,
            late=self._late,
        )
        self._loaders = Waiters()
        self._order: Sequence[Candidate] = ()
        self._task: asyncio.Task[None] | None = None
        self._unloading: asyncio.Task[int] | None = None
        self.progress = ("starting", 0.0)
        self._load_began = self._retry_at = 0.0
        self._is_held = self._is_closing = self._is_stopped = False
        keeper.track(self)

    @property
    def state(self) -> str:
        """As `ModelInfo.state` says it."""
        return "busy" if self._state == "ready" and self._traffic.is_aboard else self._state

    @property
    def residence(self) -> Literal["loading", "idle", "busy", "draining"]:
        """What the keeper must know: only `idle` may be evicted."""
        if self._task is not None or self._state == "loading":
            return "loading"
        if self._state == "draining":
            return "draining"
        return "busy" if self._traffic.is_aboard else "idle"

    @property
    def keep_alive_s(self) -> float | None:
        """Idle seconds before it is unloaded."""
        return self.job.settings.keep_alive_s if self._state == "ready" else None

    @property
    def is_open(self) -> bool:
        """Whether any request is in it."""
        return self._traffic.is_waiting or self._traffic.is_aboard

    @property
    def memory_bytes(self) -> int:
        """What its replicas are charged for."""
        return self._replicas.memory_bytes

    def submit(self, ticket: Ticket) -> None:
        """Admits a request, and sends it or lets it wait.

        Raises:
            Overloaded: the queue is full.
            Unavailable: the last load failed and it is too early to try again, or the server is stopping.
        """
        if self._is_closing:
            raise shutting_down()
        if self._state == "failed" and self._clock.now() < self._retry_at:
            raise self._failure()
        self._traffic.admit(ticket)
        if self._state == "ready" and not self._is_held:
            if len(self.slots) < self.job.settings.replicas:
                self._ensure()
            self._traffic.send(ticket)
        else:
            self._traffic.wait(ticket)
            self._ensure()
        self._traffic.report()

    def cancel(self, ticket: Ticket, error: ModelportError) -> None:
        """Ends a request for its caller now; its place is free when the line or the replica has let go of it."""
        if self._traffic.cancel(ticket, error):
            self._keeper.changed()  # a load that nobody waits for any more gives up its place in the queue for room

    async def load(self) -> None:
        """Returns when it is ready. Tries at once, even if the last load has just failed.

        Raises:
            Unavailable: it could not be loaded; the message is the cause.
        """
        if self._state == "ready":
            return
        self._retry_at = 0.0
        self._ensure()
        try:
            await self._loaders.wait()
        finally:
            self._keeper.changed()

    def unload(self, reason: str) -> asyncio.Task[int]:
        """Takes no more requests from this moment; the task lets those aboard end, and stops the replicas. Requests that
        come meanwhile wait, and load it again."""
        if self._unloading is None:
            if self._task is None and self._state == "ready":
                self._enter("draining", reason)
            self._unloading = asyncio.ensure_future(self._unload(reason))
            self._unloading.add_done_callback(self._unloaded)
        return self._unloading

    def hold(self, reason: str) -> None:
        """Lets what is aboard end and keeps new requests waiting, so that another model gets its turn."""
        if self._state == "ready":
            _log.info("making way", model=self.job.model, why=reason)
            self._is_held = True

    def resume(self) -> None:
        """Takes back `hold`."""
        self._is_held = False
        if self._state == "ready":
            self._traffic.flush()

    def warn(self, note: str) -> None:
        """Puts a note into the placement record, once."""
        if self.record is not None and note not in self.record.notes:
            self.record.notes.append(note)

    def close(self) -> None:
        """Refuses new requests from now on; those it has are still served."""
        self._is_closing = True

    async def idle(self) -> None:
        """Returns when no request is in it."""
        await self._traffic.idle()

    async def stop(self) -> None:
        """Ends it: what waits or runs is failed, and the replicas are stopped."""
        self._is_closing = self._is_stopped = True
        error = shutting_down()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None
        self._fail_all(error)
        self._traffic.fail_aboard(error)
        await self._replicas.stop()
        if self._unloading is not None:
            await asyncio.wait([self._unloading])
        await self._replicas.ended()
        if self._state not in {"declared", "failed"}:
            self._enter("unloaded", "the server is shutting down")

    # What its slots report:

    def slot_started(self, slot: Slot, ticket: Ticket) -> None:
        self._traffic.started(ticket)

    def slot_ended(self, slot: Slot, ticket: Ticket, answered: bool) -> None:
        self.last_used = self._clock.now()
        if answered:
            self._faults.answered(slot.candidate)
        self._traffic.leave(ticket, answered)
        if self._keeper.is_waited_for and not self._traffic.is_aboard:
            self._keeper.changed()

    def slot_progress(self, slot: Slot, what: str, fraction: float) -> None:
        self.progress = (what, fraction)

    def slot_stats(self, slot: Slot, stats: ReplicaStats, final: bool) -> None:
        self._events.replica_stats(self.job.model, slot.candidate.backend, stats, final, slot.name)

    def slot_failed(self, slot: Slot, ticket: Ticket, error: DeviceFailed) -> bool:
        """A device that fails one request after the other is left: its worker ends, and the next load avoids the place. Where
        there is another, the requests wait for that; their callers hear of it only if there is none."""
        now = self._clock.now()
        is_over = self._faults.failed(slot.candidate, ticket.id, error, now)
        most = 0 if self.job.settings.strict else self._faults.most_tries(slot.candidate, self._order, now)
        if is_over and not slot.is_gone:
            self.unload(f"its device failed again and again: {error.message}")
        ticket.failures += 1
        if ticket.settled or ticket.has_streamed or ticket.failures > most:
            return False
        self._pass_on(ticket)
        return True

    def slot_died(self, slot: Slot, cause: ModelportError, unstarted: list[int]) -> None:
        self._faults.died(slot.candidate, cause, self._clock.now())
        self._replicas.died(slot)
        if not self.slots and self._state == "ready":
            self._enter("loading" if self._task is not None else "unloaded", f"its worker died: {cause.message}")
        for ticket in self._traffic.rescue(slot, cause, unstarted):
            self._pass_on(ticket)
        if self._traffic.is_waiting:
            self._ensure()
        self._keeper.changed()

    def _pass_on(self, ticket: Ticket) -> None:
        if self._state == "ready" and not self._is_held:
            self._traffic.send(ticket)
        else:
            self._traffic.wait(ticket)

    def _is_wanted(self) -> bool:
        return self._traffic.is_waiting or bool(self._loaders)

    def _enter(self, state: Literal["loading", "ready", "draining", "unloaded", "failed"], reason: str) -> None:
        self._state, self.reason = state, reason
        if self.record is not None:
            self.record.state = state
            self.record.replicas = len(self.slots)
        if state != "ready":
            self._is_held = False
        self._on_state(state, reason)

    def _ensure(self) -> None:
        """Starts a load if one is needed and none is under way: many cold requests cause one load."""
        if self._task is not None or self._state == "draining" or self._is_stopped:
            return
        if len(self.slots) >= self.job.settings.replicas or (self.slots and self._clock.now() < self._retry_at):
            return
        if not self.slots:
            self.progress, self._load_began = ("starting", 0.0), self._clock.now()
            self._enter("loading", "a request needs it" if self._traffic.is_waiting else "asked to load")
        self._task = asyncio.ensure_future(self._bring_up())

    async def _bring_up(self) -> None:
        failure: Exception | None = None
        try:
            plan = await self._planner.plan(self.job, self._faults.failing(self._clock.now()))
            self.record, self._order = plan.record, plan.order
            while len(self.slots) < self.job.settings.replicas:
                if self.slots:
                    slot = await self._loading.further(plan, self, self, self.slots)
                else:
                    slot = await self._loading.first(plan, self, self, self._is_wanted, self._say)
                self._loaded(slot, plan)
        except Exception as error:
            failure = error
        self._task = None  # from here on another load may start
        if isinstance(failure, NoLongerWanted):
            self._enter("unloaded", "nobody waited for it any more")
        elif isinstance(failure, ModelportError):
            self._load_failed(failure)
        elif failure is not None:
            _log.error("load failed", model=self.job.model, exc_info=failure)
            self._load_failed(ModelFailed(f"Loading raised {type(failure).__name__}; the server's log has the details."))
        if self._is_wanted():
            self._ensure()
        self._keeper.changed()

    def _loaded(self, slot: Slot, plan: Plan) -> None:
        now = self._clock.now()
        self.slots.append(slot)
        ready, plan.record.replicas = slot.ready, len(self.slots)
        if self._state != "ready":
            self.load_s = ready.load_s or now - self._load_began
            self.ready_since = self.last_used = now
            told = {"seconds": round(self.load_s, 3), "memory_bytes": ready.memory_bytes, "pid": ready.pid}
            _log.info("ready", model=self.job.model, backend=slot.candidate.backend, **told)
            self._enter("ready", plan.record.decision)
            self._loaders.wake()
        if not self._is_held:
            self._traffic.flush()
        self._keeper.changed()

    def _load_failed(self, error: ModelportError) -> None:
        self._retry_at = self._clock.now() + self._limits.retry_failed_s
        if self.slots:
            _log.warning("replica missing", model=self.job.model, replicas=len(self.slots), cause=error.message)
            self.warn(f"{len(self.slots)} of {self.job.settings.replicas} replicas run: {error.message}")
            return
        _log.error("failed", model=self.job.model, cause=error.message)
        self._enter("failed", error.message)
        self._fail_all(self._failure())

    def _failure(self) -> Unavailable:
        return load_failed(self.job.model, self.reason, self._retry_at - self._clock.now())

    def _fail_all(self, error: ModelportError) -> None:
        self._traffic.fail_waiting(error)
        self._loaders.fail(error)

    async def _unload(self, reason: str) -> int:
        if self._task is not None:
            await asyncio.wait([self._task])
        if self._state == "ready":
            self._enter("draining", reason)
        if self._state != "draining":
            return 0
        freed = await self._replicas.stop(drain=True)
        _log.info("unloaded", model=self.job.model, why=reason, freed_bytes=freed)
        self._enter("unloaded", reason)
        if self._is_wanted():
            self._ensure()
        self._keeper.changed()
        return freed

    def _unloaded(self, task: asyncio.Task[int]) -> None:
        self._unloading = None
        if not task.cancelled() and task.exception() is not None:
            _log.error("unload failed", model=self.job.model, exc_info=task.exception())

    def _late(self, ticket: Ticket) -> None:
        self.cancel(ticket, not_yet(self.job.model, self._state, *self.progress, self._clock.now() - self._load_began))

    def _say(self, what: str) -> None:
        self.progress = (what, 0.0)
