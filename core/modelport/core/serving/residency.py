"""Who may stay in memory: pure, data in, plan out.

Rules: what loads, computes, drains, is held or is pinned is never evicted; of the rest the longest unused goes first, and no more
go than must. Where the others are only busy, the answer is to wait; where waiting cannot help, it is a refusal that says why.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

import msgspec

from modelport.core.placement.decide import readable_bytes

__all__ = ["Evictions", "Plan", "Refusal", "Resident", "Thrashing", "Wait", "make_room"]


class Resident(msgspec.Struct, frozen=True, kw_only=True):
    """A deployment that holds memory. `last_used` is any clock's; larger is later. `held` is idle, and stays for a while."""

    name: str
    state: Literal["loading", "idle", "held", "busy", "draining"]
    memory: Mapping[str, int]
    last_used: float = 0.0
    pinned: bool = False


class Evictions(msgspec.Struct, frozen=True):
    """There is room once these are gone; none if there is room already."""

    names: tuple[str, ...] = ()


class Wait(msgspec.Struct, frozen=True):
    """There will be room when some of these have become idle, or are gone."""

    names: tuple[str, ...]


class Refusal(msgspec.Struct, frozen=True):
    """There will never be room, and why."""

    reason: str


Plan: TypeAlias = Evictions | Wait | Refusal


def make_room(name: str, wanted: Mapping[str, int], residents: Sequence[Resident], budgets: Mapping[str, int]) -> Plan:
    """What it takes to load `name`, which needs `wanted` bytes by device id. Devices without a budget are unbounded."""
    short = {}
    for device, need in wanted.items():
        if device not in budgets or need <= 0:
            continue
        pinned = [resident for resident in residents if resident.pinned and resident.memory.get(device, 0)]
        for_good = sum(resident.memory[device] for resident in pinned)
        if need + for_good > budgets[device]:
            return Refusal(_why_never(name, device, need, budgets[device], for_good, [resident.name for resident in pinned]))
        used = sum(resident.memory.get(device, 0) for resident in residents)
        if used + need > budgets[device]:
            short[device] = used + need - budgets[device]
    if not short:
        return Evictions()
    idle = sorted(
        (r for r in residents if r.state == "idle" and not r.pinned), key=lambda resident: (resident.last_used, resident.name)
    )
    chosen: list[Resident] = []
    for resident in idle:
        if any(missing > 0 and resident.memory.get(device, 0) for device, missing in _after(short, chosen).items()):
            chosen.append(resident)
    if any(missing > 0 for missing in _after(short, chosen).values()):
        holders = [
            r.name for r in residents if not r.pinned and r not in chosen and any(r.memory.get(device, 0) for device in short)
        ]
        return Wait(tuple(holders))
    for resident in reversed(chosen[:]):  # whoever turns out not to be needed stays, the most recently used first
        rest = [other for other in chosen if other is not resident]
        if all(missing <= 0 for missing in _after(short, rest).values()):
            chosen = rest
    return Evictions(tuple(resident.name for resident in chosen))


def _after(short: Mapping[str, int], gone: Sequence[Resident]) -> dict[str, int]:
    return {device: missing - sum(resident.memory.get(device, 0) for resident in gone) for device, missing in short.items()}


def _why_never(name: str, device: str, need: int, budget: int, for_good: int, pinned: Sequence[str]) -> str:
    text = f"{name!r} needs {readable_bytes(need)} on {device}, whose models may hold {readable_bytes(budget)}"
    if for_good:
        text += f", of which {readable_bytes(for_good)} are pinned ({', '.join(sorted(pinned))})"
    return f"{text}. Raise memory.budget_bytes, lower its max_length or max_items{', or unpin' if for_good else ''}."


class Thrashing:
    """Notices two models that evict each other in turn sooner than their loads pay off, and holds them from then on.

    An eviction counts when the model had been ready for less than `factor` times its own load time; two such in turn,
    each for the other, are thrashing. A model that thrashes is held for that time after each load, at most `longest_s`, so that
    its load serves more than one request; it thrashes no more once it has stayed longer.
    """

    def __init__(self, factor: float = 5.0, longest_s: float = 30.0) -> None:
        self._factor = factor
        self._longest_s = longest_s
        self._hasty: dict[str, str] = {}
        self._thrashing: set[str] = set()

    def evicted(self, victim: str, wanted_by: str, resident_s: float, load_s: float) -> bool:
        """Notes an eviction; returns whether the two are thrashing."""
        # the time for which it was held says nothing of whether its load has paid off
        if resident_s > self._factor * load_s + self.hold_s(victim, load_s):
            self._hasty.pop(victim, None)
            self._thrashing.discard(victim)
            return False
        self._hasty[victim] = wanted_by
        if self._hasty.get(wanted_by) != victim:
            return False
        self._thrashing |= {victim, wanted_by}
        return True

    def hold_s(self, name: str, load_s: float) -> float:
        """Seconds for which a model stays after a load, whoever wants its room."""
        return min(self._factor * load_s, self._longest_s) if name in self._thrashing else 0.0
