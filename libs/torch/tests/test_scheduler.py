from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from modelport.contract import GenerateRequest
from modelport_torch.engine.rules import Rules
from modelport_torch.engine.scheduler import Scheduler, groups
from modelport_torch.engine.sequence import Sequence

NOTHING = np.zeros(0, np.int64)


def sequence(order: int, length: int, priority: int = 0, request: GenerateRequest | None = None, index: int = 0) -> Sequence:
    request = request or GenerateRequest(id=order, inputs={"input_ids": NOTHING}, priority=priority)
    return Sequence(request, index, order, [1] * length, Rules(), 1000)


def filled(scheduler: Scheduler, *sequences: Sequence) -> Scheduler:
    for one in sequences:
        scheduler.add(one)
    scheduler.running += scheduler.admit()
    return scheduler


def test_queue_serves_by_priority_then_by_age() -> None:
    scheduler = Scheduler(max_rows=2, max_tokens=4096, prefill_tokens=512)
    for one in (sequence(1, 5), sequence(2, 5, priority=9), sequence(3, 5), sequence(4, 5, priority=9)):
        scheduler.add(one)
    assert [s.order for s in scheduler.admit()] == [2, 4]
    assert [s.order for s in scheduler.waiting] == [1, 3]


def test_prompts_over_the_budget_wait_for_the_next_step() -> None:
    scheduler = Scheduler(max_rows=8, max_tokens=4096, prefill_tokens=100)
    for order in range(4):
        scheduler.add(sequence(order, 40))
    assert [s.order for s in scheduler.admit()] == [0, 1]


def test_who_runs_waits_for_a_quarter_of_the_budget_only() -> None:
    scheduler = filled(Scheduler(max_rows=8, max_tokens=4096, prefill_tokens=200), sequence(0, 10))
    for order in (1, 2, 3):
        scheduler.add(sequence(order, 25))
    assert scheduler.budget() == 50
    assert [s.order for s in scheduler.admit()] == [1, 2]


def test_a_long_prompt_takes_smaller_steps_while_others_run() -> None:
    scheduler = filled(Scheduler(max_rows=8, max_tokens=4096, prefill_tokens=200), sequence(0, 10))
    scheduler.add(sequence(1, 51))
    assert scheduler.budget() == 25
    scheduler.joining = scheduler.admit()
    assert scheduler.budget() == 25
    scheduler.running = []
    assert scheduler.budget() == 200


def test_prompt_longer_than_the_budget_is_admitted_alone() -> None:
    scheduler = filled(Scheduler(8, 4096, 100), sequence(1, 300), sequence(2, 5))
    assert [s.order for s in scheduler.running] == [1]


def test_choices_of_one_request_count_as_one_prompt() -> None:
    request = GenerateRequest(id=1, inputs={"input_ids": NOTHING}, n=4)
    scheduler = Scheduler(8, 4096, 100)
    for index in range(4):
        scheduler.add(sequence(index, 90, request=request, index=index))
    assert len(scheduler.admit()) == 4


def test_nobody_is_overtaken_by_who_is_smaller() -> None:
    scheduler = filled(Scheduler(4, 512, 512), sequence(1, 100))
    scheduler.add(sequence(2, 400))
    scheduler.add(sequence(3, 5))
    assert scheduler.admit() == []
    assert [s.order for s in scheduler.waiting] == [2, 3]


def test_growth_beyond_the_cache_sends_back_who_would_be_served_last() -> None:
    scheduler = filled(Scheduler(4, 512, 512), sequence(1, 60), sequence(2, 60, priority=5), sequence(3, 60))
    assert len(scheduler.running) == 3
    for one in scheduler.running:
        one.tokens = [1] * 132  # 192 tokens each; one more is four blocks for each of three
    victims = [scheduler.running[row].order for row in scheduler.preempt()]
    assert victims == [3]


def test_sequence_that_is_alone_is_never_sent_back() -> None:
    scheduler = filled(Scheduler(4, 128, 512), sequence(1, 120))
    scheduler.running[0].tokens = [1] * 100
    assert scheduler.preempt() == []


def test_leaving_row_is_filled_by_the_last_one() -> None:
    scheduler = filled(Scheduler(4, 4096, 512), *(sequence(order, 5) for order in range(3)))
    gone, moved_from = scheduler.leave(0)
    assert (gone.order, moved_from) == (0, 2)
    assert [s.order for s in scheduler.running] == [2, 1]


def test_groups_are_of_similar_length_and_within_the_budget() -> None:
    made = groups([sequence(i, length) for i, length in enumerate((100, 10, 95, 9, 80, 100))], budget=300)
    assert [[s.length for s in group] for group in made] == [[100, 100, 95], [80], [10, 9]]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 400), st.integers(1, 120), st.integers(0, 2)), min_size=1, max_size=25))
def test_scheduler_serves_everybody_and_never_outgrows_the_cache(jobs: list[tuple[int, int, int]]) -> None:
    scheduler = Scheduler(max_rows=6, max_tokens=1024, prefill_tokens=256)
    for order, (length, _, priority) in enumerate(jobs):
        scheduler.add(sequence(order, length, priority))
    wanted = {order: wanted for order, (_, wanted, _) in enumerate(jobs)}
    served = 0
    for _ in range(20_000):
        for row in scheduler.preempt():
            gone, _ = scheduler.leave(row)
            scheduler.add(gone)
        scheduler.running += scheduler.admit()
        assert len(scheduler.running) <= 1 or scheduler.used() <= 1024
        assert len(scheduler.running) <= 6
        for row in reversed(range(len(scheduler.running))):
            one = scheduler.running[row]
            one.tokens.append(1)
            if len(one.tokens) >= wanted[one.order]:
                scheduler.leave(row)
                served += 1
        if served == len(jobs):
            return
    raise AssertionError("somebody was never served")
