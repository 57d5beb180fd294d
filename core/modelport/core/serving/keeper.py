"""The keeper of memory: carries out what `residency` decides, and unloads what has been idle for too long."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Literal, Protocol

import structlog

from modelport.contract.errors import Unavailable
from modelport.core.serving.clock import Clock
from modelport.core.serving.residency import Evictions, Refusal, Resident, Thrashing, make_room
from modelport.core.serving.waiters import Waiters

__all__ = ["Keeper", "NoLongerWanted", "Tenant"]

_log = structlog.get_logger("modelport.serving")


class NoLongerWanted(Exception):
    """Everybody who waited for this load has gone."""


class Tenant(Protocol):
    """A deployment, as far as memory goes."""

    @property
    def name(self) -> str: ...
    @property
    def residence(self) -> Literal["loading", "idle", "busy", "draining"]: ...
    @property
    def last_used(self) -> float: ...
    @property
    def ready_since(self) -> float: ...
    @property
    def load_s(self) -> float: ...
    @property
    def is_pinned(self) -> bool: ...
    @property
    def keep_alive_s(self) -> float | None: ...

    def unload(self, reason: str) -> asyncio.Task[int]:
        """Takes no more calls from this moment; the task drains, stops, and releases its memory."""

    def hold(self, reason: str) -> None:
        """Lets what is running end and keeps new requests waiting, so that another gets its turn."""

    def resume(self) -> None:
        """Takes back `hold`."""

    def warn(self, note: str) -> None:
        """Puts a note into its placement record."""


class Keeper:
    """Who holds how much of which device.

    Args:
        budgets: Most bytes per device id, asked at every decision.
        clock: The time.
        patience_s: How long a load waits for busy models before they are asked to make way between two requests; without
            that, a model that is never idle would keep all others out for good.
    """

    def __init__(self, budgets: Callable[[], Mapping[str, int]], clock: Clock, patience_s: float = 5.0) -> None:
        self._budgets = budgets
        self._clock = clock
        self._patience_s = patience_s
        self._tenants: dict[str, Tenant] = {}
        self._held: dict[str, dict[str, int]] = {}
        self._changed = Waiters()
        self._thrashing = Thrashing()

    def track(self, tenant: Tenant) -> None:
        """Makes a deployment known; it holds nothing yet."""
        self._tenants[tenant.name] = tenant

    def used(self, device: str) -> int:
        """Bytes of a device that models hold or have reserved."""
        return sum(memory.get(device, 0) for memory in self._held.values())

    async def reserve(
        self, tenant: Tenant, needs: Mapping[str, int], wanted: Callable[[], bool], *, may_wait: bool, say: Callable[[str], None]
    ) -> None:
        """Charges `tenant` for `needs` by device id and returns when that room is free.

        Args:
            tenant: Who is to be loaded.
            needs: Bytes by device id.
            wanted: Whether anybody still waits for it; asked whenever something changed.
            may_wait: Whether to wait for busy models, or to give up at once.
            say: Told what it waits for.

        Raises:
            Unavailable: there will never be room, or there is none now and it may not wait.
            NoLongerWanted: while it waited, everybody left.
        """
        made_way: dict[str, Tenant] = {}
        is_urgent = False
        timer = None

        def hurry() -> None:
            nonlocal is_urgent
            is_urgent = True
            self.changed()

        try:
            while True:
                plan = make_room(tenant.name, needs, self._residents(), self._budgets())
                if isinstance(plan, Refusal):
                    raise Unavailable(plan.reason)
                if isinstance(plan, Evictions):
                    self._charge(tenant, needs)
                    await self._evict(plan.names, tenant)
                    return
                if not may_wait:
                    raise Unavailable(f"There is no room for another replica of {tenant.name!r} beside {_list(plan.names)}.")
                if not wanted():
                    raise NoLongerWanted
                say(f"waiting for room: {_list(plan.names)} must become idle first")
                for held_s in (self._held_s(self._tenants[name]) for name in plan.names):
                    if held_s > 0:
                        self._clock.later(held_s + 0.001, self.changed)
                if timer is None:
                    timer = self._clock.later(self._patience_s, hurry)
                if is_urgent:
                    self._make_way(tenant, plan.names, made_way)
                await self._changed.wait()
        finally:
            if timer is not None:
                timer.cancel()
            for other in made_way.values():
                other.resume()

    def adjust(self, tenant: Tenant, before: Mapping[str, int], after: Mapping[str, int]) -> None:
        """Replaces an estimate by what was measured."""
        self._charge(tenant, {device: after.get(device, 0) - before.get(device, 0) for device in {*before, *after}})

    def release(self, tenant: Tenant, memory: Mapping[str, int]) -> None:
        """Takes back a charge."""
        self._charge(tenant, {device: -size for device, size in memory.items()})
        self.changed()

    def changed(self) -> None:
        """Something became idle, free or unwanted: those who wait look again."""
        self._changed.wake()

    @property
    def is_waited_for(self) -> bool:
        """Whether any load waits for room."""
        return bool(self._changed)

    def sweep(self) -> None:
        """Unloads what has been idle for longer than its `keep_alive_s`."""
        now = self._clock.now()
        for tenant in list(self._tenants.values()):
            keep_alive_s = tenant.keep_alive_s
            if keep_alive_s is None or tenant.is_pinned or tenant.residence != "idle":
                continue
            if now - tenant.last_used >= keep_alive_s:
                tenant.unload(f"idle for {now - tenant.last_used:.0f} s (keep_alive_s = {keep_alive_s:g})")

    def _residents(self) -> list[Resident]:
        residents = []
        for name, memory in self._held.items():
            tenant = self._tenants[name]
            residents.append(
                Resident(
                    name=name,
                    state="held" if tenant.residence == "idle" and self._held_s(tenant) > 0 else tenant.residence,
                    memory=dict(memory),
                    last_used=tenant.last_used,
                    pinned=tenant.is_pinned,
                )
            )
        return residents

    def _held_s(self, tenant: Tenant) -> float:
        """Seconds for which an idle model must stay yet, because it has been thrashing."""
        return tenant.ready_since + self._thrashing.hold_s(tenant.name, tenant.load_s) - self._clock.now()

    def _charge(self, tenant: Tenant, memory: Mapping[str, int]) -> None:
        held = self._held.setdefault(tenant.name, {})
        for device, size in memory.items():
            held[device] = held.get(device, 0) + size
        if not any(held.values()):
            del self._held[tenant.name]

    async def _evict(self, names: tuple[str, ...], wanted_by: Tenant) -> None:
        now = self._clock.now()
        for name in names:
            victim = self._tenants[name]
            if self._thrashing.evicted(name, wanted_by.name, now - victim.ready_since, victim.load_s):
                note = (
                    f"{name!r} and {wanted_by.name!r} evict each other in turn, sooner than their loads pay off; from now on "
                    "each stays for a while after its load, and the other waits"
                )
                _log.warning("thrashing", models=[name, wanted_by.name], advice=f"{note}; raise memory.budget_bytes or pin one")
                victim.warn(note)
                wanted_by.warn(note)
        tasks = [self._tenants[name].unload(f"to make room for {wanted_by.name!r}") for name in names]
        if tasks:
            # shielded: who waits for the room may give up, the models leave all the same
            await asyncio.shield(asyncio.gather(*tasks, return_exceptions=True))

    def _make_way(self, tenant: Tenant, names: tuple[str, ...], made_way: dict[str, Tenant]) -> None:
        for name in names:
            other = self._tenants[name]
            if name not in made_way and other.residence == "busy":
                made_way[name] = other
                other.hold(f"{tenant.name!r} has waited for room")


def _list(names: tuple[str, ...]) -> str:
    return ", ".join(repr(name) for name in names)
