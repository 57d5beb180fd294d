from __future__ import annotations

from typing import NamedTuple

import pytest

from modelport.contract.runner import Limits
from modelport.core.worker.batcher import choose, fits


class Waits(NamedTuple):
    cost: int
    priority: int = 0
    arrived: float = 0.0
    entry: str = "main"
    alone: bool = False
    group: str = ""


def test_nothing_waits_so_nothing_runs() -> None:
    assert choose([], Limits(), 0.0) is None


def test_everything_that_fits_runs_at_once() -> None:
    plan = choose([Waits(10, arrived=n) for n in range(20)], Limits(max_items=32), 20.0)
    assert plan is not None
    assert len(plan.items) == 20
    assert not plan.is_full
    assert plan.padded_tokens == 200


def test_a_batch_has_at_most_max_items() -> None:
    plan = choose([Waits(10, arrived=n) for n in range(20)], Limits(max_items=8), 20.0)
    assert plan is not None
    assert [item.arrived for item in plan.items] == list(range(8))
    assert plan.is_full


def test_padded_tokens_stay_within_the_budget() -> None:
    plan = choose([Waits(100, arrived=n) for n in range(20)], Limits(max_tokens=450), 20.0)
    assert plan is not None
    assert (len(plan.items), plan.is_full, plan.padded_tokens) == (4, True, 400)


def test_an_item_over_the_budget_runs_alone_rather_than_never() -> None:
    plan = choose([Waits(1000), Waits(10, arrived=1)], Limits(max_tokens=450), 2.0)
    assert plan is not None
    assert [item.cost for item in plan.items] == [1000]


def test_items_of_like_length_run_together() -> None:
    short, long = [Waits(8, arrived=2 * n) for n in range(8)], [Waits(900, arrived=2 * n + 1) for n in range(8)]
    plan = choose([item for pair in zip(short, long, strict=True) for item in pair], Limits(), 20.0)
    assert plan is not None
    assert plan.items == short


def test_a_batch_never_mixes_entries() -> None:
    waiting = [Waits(4, arrived=n, entry="text" if n % 2 else "image") for n in range(6)]
    plan = choose(waiting, Limits(), 6.0)
    assert plan is not None
    assert {item.entry for item in plan.items} == {"image"}
    assert len(plan.items) == 3


def test_the_oldest_goes_first() -> None:
    plan = choose([Waits(900, arrived=5.0), Waits(4, arrived=1.0), Waits(900, arrived=3.0)], Limits(), 6.0)
    assert plan is not None
    assert plan.items == [Waits(4, arrived=1.0)]


def test_priority_goes_before_age_until_age_outweighs_it() -> None:
    old, urgent = Waits(900, arrived=0.0), Waits(4, priority=5, arrived=1.0)
    soon, late = choose([old, urgent], Limits(), 2.0), choose([old, Waits(4, priority=5, arrived=8.0)], Limits(), 8.0)
    assert soon is not None
    assert soon.items == [urgent]
    assert late is not None
    assert late.items == [old], "after 8 s it has waited for more than five steps of priority"


def test_no_item_starves_under_a_stream_of_urgent_ones() -> None:
    patient, now = Waits(900, arrived=0.0), 0.0
    for _ in range(100):
        now += 0.5
        plan = choose([patient, Waits(4, priority=10, arrived=now)], Limits(max_items=1), now)
        assert plan is not None
        if plan.items == [patient]:
            break
    assert plan.items == [patient]
    assert now <= 11


def test_urgent_items_are_taken_aboard_before_nearer_ones() -> None:
    waiting = [Waits(10, priority=3), *(Waits(10, arrived=n) for n in range(5)), Waits(14, priority=3, arrived=9)]
    plan = choose(waiting, Limits(max_items=2), 9.0)
    assert plan is not None
    assert [item.priority for item in plan.items] == [3, 3]


SHAPES = Limits(max_items=4, shapes=((1, 16), (1, 64), (4, 16), (4, 64)))


def test_the_smallest_shape_that_holds_the_batch_is_taken() -> None:
    one, three = choose([Waits(10)], SHAPES, 1.0), choose([Waits(10), Waits(12), Waits(16)], SHAPES, 1.0)
    assert one is not None
    assert one.shape == (1, 16)
    assert three is not None
    assert three.shape == (4, 16)


def test_a_batch_is_full_when_no_shape_is_larger() -> None:
    plan = choose([Waits(10, arrived=n) for n in range(9)], SHAPES, 9.0)
    assert plan is not None
    assert (len(plan.items), plan.shape, plan.is_full) == (4, (4, 16), True)


def test_an_item_on_the_device_runs_by_itself() -> None:
    plan = choose([Waits(1, alone=True), Waits(1, arrived=1)], SHAPES, 2.0)
    assert plan is not None
    assert (len(plan.items), plan.shape) == (1, (1, 16))


@pytest.mark.parametrize(
    ("cost", "limits", "answer"),
    [
        (100, Limits(), True),
        (100, Limits(max_length=99), False),
        (64, SHAPES, True),
        (65, SHAPES, False),
    ],
)
def test_what_can_never_run_does_not_fit(cost: int, limits: Limits, answer: bool) -> None:
    assert fits(cost, limits) is answer


def test_items_of_different_groups_never_share_a_batch() -> None:
    waiting = [Waits(10, arrived=n, group="tall" if n % 2 else "wide") for n in range(6)]

    plan = choose(waiting, Limits(), 6.0)

    assert plan is not None
    assert [item.group for item in plan.items] == ["wide"] * 3
