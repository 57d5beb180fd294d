"""Loading one replica: the candidates in their order, the next when one fails, and the story of it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import structlog

from modelport.contract.errors import ModelFailed, ModelportError, Unavailable
from modelport.contract.extension import Candidate
from modelport.core.placement.record import AttemptRecord
from modelport.core.serving.clock import Clock
from modelport.core.serving.events import Events
from modelport.core.serving.job import Job, Plan, Planner
from modelport.core.serving.keeper import Keeper, NoLongerWanted, Tenant
from modelport.core.serving.slot import Slot, SlotOwner

__all__ = ["Loading", "memory_of"]

_log = structlog.get_logger("modelport.serving")
_serial = itertools.count(1)


class Loading:
    """Brings up replicas of one deployment.

    Args:
        job: What is loaded.
        planner: Makes replicas.
        keeper: Who knows how much room there is.
        clock: The time.
        events: What is reported.
    """

    def __init__(self, job: Job, planner: Planner, keeper: Keeper, clock: Clock, events: Events) -> None:
        self._job = job
        self._planner = planner
        self._keeper = keeper
        self._clock = clock
        self._events = events

    async def first(
        self, plan: Plan, owner: SlotOwner, tenant: Tenant, wanted: Callable[[], bool], say: Callable[[str], None]
    ) -> Slot:
        """The first replica, on the first candidate that works.

        Raises:
            ModelportError: the cause; of several, the first, and the places that failed after it.
            NoLongerWanted: everybody who waited has gone.
        """
        if not plan.order:
            raise Unavailable(plan.record.decision)
        failures: list[tuple[Candidate, ModelportError]] = []
        for candidate in plan.order[:1] if self._job.settings.strict else plan.order:
            try:
                slot = await self._start(candidate, plan, owner, tenant, wanted, say, may_wait=True)
            except ModelportError as error:
                _log.warning("load failed", model=self._job.model, device=candidate.place, cause=error.message)
                failures.append((candidate, error))
                continue
            if failures:
                gone = "; ".join(f"{other.place}: {error.message}" for other, error in failures)
                plan.record.decision = f"{self._job.model} runs on {candidate.place}, because loading failed elsewhere. {gone}"
                plan.record.notes.append(f"fell back to {candidate.place}")
            if failures or plan.failing:
                self._events.fell_back(self._job.model, candidate.backend)
            return slot
        raise _verdict(failures, strict=self._job.settings.strict and len(plan.order) > 1)

    async def further(self, plan: Plan, owner: SlotOwner, tenant: Tenant, slots: Sequence[Slot]) -> Slot:
        """One more replica beside `slots`, on the least used device of the same backend; takes no other model's room.

        Raises:
            ModelportError: it failed, or there is no room now.
        """
        backend = slots[0].candidate.backend
        places = [candidate for candidate in plan.order if candidate.backend == backend] or [slots[0].candidate]
        load = {place.place: sum(slot.candidate.place == place.place for slot in slots) for place in places}
        place = min(places, key=lambda candidate: load[candidate.place])
        return await self._start(place, plan, owner, tenant, lambda: True, lambda what: None, may_wait=False)

    async def _start(
        self,
        candidate: Candidate,
        plan: Plan,
        owner: SlotOwner,
        tenant: Tenant,
        wanted: Callable[[], bool],
        say: Callable[[str], None],
        *,
        may_wait: bool,
    ) -> Slot:
        began = self._clock.now()
        memory = memory_of(candidate, candidate.verdict.memory_bytes)
        slot = Slot(f"{self._job.model}#{next(_serial)}", candidate, owner, self._clock, memory)
        devices = [device.id for device in candidate.devices]
        charged = False
        try:
            await self._keeper.reserve(tenant, memory, wanted, may_wait=may_wait, say=say)
            charged = True
            ready = await slot.start(lambda slot: self._planner.replica(self._job, slot))
        except BaseException as error:
            if charged:
                self._keeper.release(tenant, memory)
            if isinstance(error, NoLongerWanted) or not isinstance(error, Exception):
                raise
            seconds = self._clock.now() - began
            plan.record.attempts.append(
                AttemptRecord(backend=candidate.backend, devices=devices, seconds=seconds, error=str(error))
            )
            if isinstance(error, ModelportError):
                raise
            _log.exception("load failed", model=self._job.model)
            raise ModelFailed(f"Loading raised {type(error).__name__}; the server's log has the details.") from error
        measured = memory_of(candidate, max(ready.memory_bytes, candidate.verdict.memory_bytes))
        self._keeper.adjust(tenant, memory, measured)
        slot.memory = measured
        seconds = self._clock.now() - began
        plan.record.attempts.append(AttemptRecord(backend=candidate.backend, devices=devices, seconds=seconds))
        self._planner.loaded(self._job, slot)
        plan.record.loaded(candidate.backend, devices, ready, self._job.program)
        self._events.load_finished(self._job.model, candidate.backend, ready.load_s or seconds, ready.memory_bytes)
        return slot


def memory_of(candidate: Candidate, size: int) -> dict[str, int]:
    """`size` bytes, spread evenly over the candidate's devices."""
    return {device.id: -(-size // len(candidate.devices)) for device in candidate.devices}


def _verdict(failures: Sequence[tuple[Candidate, ModelportError]], *, strict: bool) -> ModelportError:
    candidate, error = failures[0]
    text = error.message
    others = [f"{other.place}: {later.message}" for other, later in failures[1:] if later.message != error.message]
    if others:
        text = f"{candidate.place}: {text} Then {'; '.join(others)}"
    elif strict:
        text = f"{text} No other place was tried, because the model is strict."
    return type(error)(text, param=error.param, retry_after_s=error.retry_after_s)
