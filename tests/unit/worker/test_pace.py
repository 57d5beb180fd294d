from __future__ import annotations

import pytest

from modelport.core.worker.pace import SHORT_S, Pace


def seen(*took: float, size: int = 100, waited: float = 0.0) -> Pace:
    pace = Pace()
    for seconds in took:
        pace.learn(size, seconds, seconds + waited)
    return pace


def test_nothing_is_short_before_it_has_been_seen_often() -> None:
    assert not Pace().is_short(1)
    assert not seen(*[1e-6] * 7).is_short(1)
    assert seen(*[1e-6] * 8).is_short(1)


def test_a_larger_request_takes_longer() -> None:
    pace = seen(*[SHORT_S / 10] * 8, size=1000)
    assert pace.is_short(2000)
    assert not pace.is_short(100_000)


def test_the_slowest_call_counts_and_fades() -> None:
    pace = seen(*[SHORT_S / 10] * 8)
    pace.learn(100, SHORT_S * 3, SHORT_S * 3)
    assert not pace.is_short(100)
    for _ in range(40):
        pace.learn(100, SHORT_S / 10, SHORT_S / 10)
    assert pace.is_short(100)


@pytest.mark.parametrize(("waited", "short"), [(0.0, True), (SHORT_S * 10, False)])
def test_what_waits_for_something_else_is_not_short(waited: float, short: bool) -> None:
    assert seen(*[1e-6] * 8, waited=waited).is_short(1) is short


def test_three_uncontended_calls_show_that_it_does_not_wait() -> None:
    pace = seen(*[1e-6] * 8, waited=SHORT_S * 10)
    for _ in range(2):
        pace.learn(100, 1e-6, 2e-6)
    assert not pace.is_short(1), "a file in the cache now and then is not a function that does not wait"
    pace.learn(100, 1e-6, 2e-6)
    assert pace.is_short(1)
