"""Loading one replica: the candidates in their order, the next when one fails, and the story of it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import msgspec
import structlog

from modelport.contract.errors import ModelFailed, ModelportError, Unavailable
from modelport.contract.executor import Replica
from modelport.contract.extension import Candidate
from modelport.core.placement.record import AttemptRecord, PlacementRecord
from modelport.core.serving.clock import Clock
from modelport.core.serving.keeper import Keeper, NoLongerWanted, Tenant
from modelport.core.serving.slot import Slot, SlotOwner

__all__ = ["Faults", "Loading", "Plan", "memory_of"]

_log = structlog.get_logger("modelport.serving")
_serial = itertools.count(1)


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """Where to load, best first, and the record of why."""

    order: Sequence[Candidate]
    record: PlacementRecord


class Faults:
    """Workers that died, by where they ran: a place where it happens again and again goes last."""

    def __init__(self, most: int = 3, window_s: float = 300.0) -> None:
        self._most = most
        self._window_s = window_s
        self._deaths: dict[str, list[float]] = {}

    def died(self, candidate: Candidate, now: float) -> None:
        """Notes a death."""
        deaths = self._deaths.setdefault(_where(candidate), [])
        deaths[:] = [*(at for at in deaths if now - at < self._window_s), now]

    def failing(self, now: float) -> dict[str, str]:
        """Places to avoid, with the reason."""
        counts = {where: sum(now - at < self._window_s for at in deaths) for where, deaths in self._deaths.items()}
        return {
            where: f"its worker died {count} times within {self._window_s:.0f} s"
            for where, count in counts.items()
            if count >= self._most
        }


class Loading:
    """Brings up replicas of one deployment.

    Args:
        model: The model, for messages.
        strict: Whether only the first candidate may be used.
        make: Makes a replica for a slot, not started.
        keeper: Who knows how much room there is.
        clock: The time.
    """

    def __init__(self, model: str, strict: bool, make: Callable[[Slot], Replica], keeper: Keeper, clock: Clock) -> None:
        self._model = model
        self._strict = strict
        self._make = make
        self._keeper = keeper
        self._clock = clock

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
        for candidate in plan.order[:1] if self._strict else plan.order:
            try:
                slot = await self._start(candidate, plan, owner, tenant, wanted, say, may_wait=True)
            except ModelportError as error:
                _log.warning("load failed", model=self._model, device=_where(candidate), cause=error.message)
                failures.append((candidate, error))
                continue
            if failures:
                gone = "; ".join(f"{_where(other)}: {error.message}" for other, error in failures)
                plan.record.decision = f"{self._model} runs on {_where(candidate)}, because loading failed elsewhere. {gone}"
                plan.record.notes.append(f"fell back to {_where(candidate)}")
            return slot
        raise _verdict(failures, strict=self._strict and len(plan.order) > 1)

    async def further(self, plan: Plan, owner: SlotOwner, tenant: Tenant, slots: Sequence[Slot]) -> Slot:
        """One more replica beside `slots`, on the least used device of the same backend; takes no other model's room.

        Raises:
            ModelportError: it failed, or there is no room now.
        """
        backend = slots[0].candidate.backend
        places = [candidate for candidate in plan.order if candidate.backend == backend] or [slots[0].candidate]
        load = {_where(place): sum(_where(slot.candidate) == _where(place) for slot in slots) for place in places}
        place = min(places, key=lambda candidate: load[_where(candidate)])
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
        slot = Slot(f"{self._model}#{next(_serial)}", candidate, owner, self._clock, memory)
        devices = [device.id for device in candidate.devices]
        charged = False
        try:
            await self._keeper.reserve(tenant, memory, wanted, may_wait=may_wait, say=say)
            charged = True
            ready = await slot.start(self._make)
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
            _log.exception("load failed", model=self._model)
            raise ModelFailed(f"Loading raised {type(error).__name__}; the server's log has the details.") from error
        measured = memory_of(candidate, max(ready.memory_bytes, candidate.verdict.memory_bytes))
        self._keeper.adjust(tenant, memory, measured)
        slot.memory = measured
        plan.record.attempts.append(AttemptRecord(backend=candidate.backend, devices=devices, seconds=self._clock.now() - began))
        return slot


def memory_of(candidate: Candidate, size: int) -> dict[str, int]:
    """`size` bytes, spread evenly over the candidate's devices."""
    return {device.id: -(-size // len(candidate.devices)) for device in candidate.devices}


def _where(candidate: Candidate) -> str:
    return "+".join(device.id for device in candidate.devices) or candidate.backend or "no backend"


def _verdict(failures: Sequence[tuple[Candidate, ModelportError]], *, strict: bool) -> ModelportError:
    candidate, error = failures[0]
    text = error.message
    others = [f"{_where(other)}: {later.message}" for other, later in failures[1:] if later.message != error.message]
    if others:
        text = f"{_where(candidate)}: {text} Then {'; '.join(others)}"
    elif strict:
        text = f"{text} No other place was tried, because the model is strict."
    return type(error)(text, param=error.param, retry_after_s=error.retry_after_s)
