from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelport.contract import Media, Overloaded
from modelport.core.serving.admission import Admission, weigh


def test_a_queue_counts_what_waits_and_not_what_runs():
    queue = Admission("m", items=2, size_bytes=100)
    queue.admit(10, 0.0)
    queue.admit(10, 0.0)
    with pytest.raises(Overloaded, match="2 requests wait already"):
        queue.admit(10, 0.0)
    queue.start(10, 1.0)
    queue.admit(10, 1.0)
    assert (queue.waiting, queue.running, queue.waiting_bytes) == (2, 1, 20)


def test_one_request_larger_than_the_bound_is_taken_by_an_empty_queue():
    queue = Admission("m", items=9, size_bytes=100)
    queue.admit(500, 0.0)
    with pytest.raises(Overloaded, match="limit is 100"):
        queue.admit(1, 0.0)


def test_retry_after_follows_the_rate_at_which_requests_are_begun():
    queue = Admission("m", items=10, size_bytes=1000)
    assert queue.retry_after_s() == 1.0, "nothing is known yet"
    for _ in range(10):
        queue.admit(1, 100.0)
    for second in range(1, 6):
        queue.start(1, 100.0 + 2 * second)
    assert queue.retry_after_s() == pytest.approx(5 * 2.0)


def test_an_idle_night_is_not_a_slow_model():
    queue = Admission("m", items=10, size_bytes=1000)
    for night in range(3):
        queue.admit(1, night * 30_000.0)
        queue.start(1, night * 30_000.0 + 1.0)
        queue.leave(1, night * 30_000.0 + 2.0, started=True, served=True)
    queue.admit(1, 100_000.0)
    assert queue.retry_after_s() == pytest.approx(1.0)


@given(st.lists(st.sampled_from(["admit", "start", "answer", "drop"]), max_size=60))
def test_the_books_always_balance(steps):
    queue = Admission("m", items=5, size_bytes=50)
    waiting, running = 0, 0
    for now, step in enumerate(steps):
        if step == "admit" and waiting < 5:
            queue.admit(10, float(now))
            waiting += 1
        elif step == "start" and waiting:
            queue.start(10, float(now))
            waiting, running = waiting - 1, running + 1
        elif step == "answer" and running:
            queue.leave(10, float(now), started=True, served=True)
            running -= 1
        elif step == "drop" and waiting:
            queue.leave(10, float(now), started=False, served=False)
            waiting -= 1
        assert (queue.waiting, queue.running, queue.waiting_bytes) == (waiting, running, 10 * waiting)


def test_a_request_weighs_about_its_content():
    class Request(msgspec.Struct):
        texts: list[str]
        tokens: list[int]
        image: Media
        array: np.ndarray

    request = Request(["x" * 1000, "y" * 500], [1] * 100, Media(data=b"z" * 4000), np.zeros((10, 10), np.float32))
    assert 1500 + 800 + 4000 + 400 <= weigh(request) <= 1500 + 800 + 4000 + 400 + 100
