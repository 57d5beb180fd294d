"""The decision which waiting items form the next batch. Pure: items and limits in, a plan out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, NamedTuple, Protocol, TypeVar

from modelport.contract.runner import Limits

__all__ = ["Plan", "Waiting", "choose", "fits", "halves"]

AGE_S = 1.0
"""Waiting this long counts as much as one step of priority, so that nothing waits for ever."""

WASTE_RATIO = 1.5
WASTE_SLACK_TOKENS = 256
"""A batch may hold 1.5 padded tokens per true token, and this many for nothing: less than what another batch costs."""


class Waiting(Protocol):
    """What is asked of an item that waits. `alone` items hold device memory and cannot be stacked; those of different `group`s
    cannot be stacked either."""

    @property
    def entry(self) -> str: ...
    @property
    def group(self) -> str: ...
    @property
    def cost(self) -> int: ...
    @property
    def priority(self) -> int: ...
    @property
    def arrived(self) -> float:
        """Seconds on the clock that `choose` is told."""

    @property
    def alone(self) -> bool: ...


W = TypeVar("W", bound=Waiting)


class Plan(NamedTuple, Generic[W]):
    """The next batch. `shape` is the (items, length) to pad to, if the runner has fixed ones. `is_full` says that
    waiting for more items would not make it larger. `padded_tokens` is what the device will compute."""

    items: list[W]
    shape: tuple[int, int] | None
    is_full: bool
    padded_tokens: int


def fits(cost: int, limits: Limits) -> bool:
    """Whether an item of `cost` can run at all."""
    if limits.max_length is not None and cost > limits.max_length:
        return False
    return limits.shapes is None or any(cost <= length for _, length in limits.shapes)


def choose(waiting: Sequence[W], limits: Limits, now: float) -> Plan[W] | None:
    """The batch to run next, or None if nothing waits. Items must have passed `fits`.

    The item with the highest priority, counting age, is in it; others of its entry and group join while there is room, those of
    higher priority first, then those nearest in length, unless they would make most of the batch padding.
    """
    if not waiting:
        return None
    head = max(waiting, key=lambda item: (item.priority + (now - item.arrived) / AGE_S, -item.arrived))
    area = _area(1, head.cost, limits)
    assert area is not None, "an item that fits no shape was queued"
    if head.alone:
        return Plan([head], area[0], True, area[1])
    kind = head.entry, head.group
    others = [item for item in waiting if (item.entry, item.group) == kind and item is not head and not item.alone]
    others.sort(key=lambda item: (-item.priority, abs(item.cost - head.cost), item.arrived))
    items, true_tokens, longest = [head], head.cost, head.cost
    is_full = False
    for item in others:
        if len(items) >= limits.max_items:
            is_full = True
            break
        grown = _area(len(items) + 1, max(longest, item.cost), limits)
        if grown is None or grown[1] > limits.max_tokens:
            is_full = True
            continue
        padded, true = grown[1], true_tokens + item.cost
        if padded > area[1] and padded > WASTE_RATIO * true + WASTE_SLACK_TOKENS:
            continue
        items.append(item)
        area, true_tokens, longest = grown, true, max(longest, item.cost)
    return Plan(items, area[0], is_full or len(items) >= limits.max_items, area[1])


def halves(items: Sequence[W], limits: Limits) -> list[Plan[W]]:
    """Two batches of what did not fit as one; of a single item there are none."""
    middle = (len(items) + 1) // 2
    plans = []
    for half in (list(items[:middle]), list(items[middle:])) if middle < len(items) else ():
        area = _area(len(half), max(item.cost for item in half), limits)
        assert area is not None, "what fitted together fits in parts"
        plans.append(Plan(half, area[0], True, area[1]))
    return plans


def _area(count: int, longest: int, limits: Limits) -> tuple[tuple[int, int] | None, int] | None:
    """The smallest (shape, padded tokens) that takes so many items of such a length; None if no shape does."""
    if limits.shapes is None:
        return None, count * longest
    shapes = [shape for shape in limits.shapes if shape[0] >= count and shape[1] >= longest]
    if not shapes:
        return None
    shape = min(shapes, key=lambda s: (s[0] * s[1], s))
    return shape, shape[0] * shape[1]
