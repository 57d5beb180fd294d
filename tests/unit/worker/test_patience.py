"""Whether the next batch waits for those who were just answered."""

from __future__ import annotations

import pytest

from modelport.core.worker.patience import Patience


def test_the_next_batch_waits_until_those_who_were_answered_have_asked_again() -> None:
    patience = Patience(0.25)
    patience.batch_ended(10.0, 0.02, answered=4, waiting=4)
    assert patience.wait_s(10.0, callers=4) == pytest.approx(0.005)
    assert patience.wait_s(10.001, callers=7) > 0
    assert patience.wait_s(10.002, callers=8) == 0


def test_it_waits_a_share_of_a_batch_and_no_longer() -> None:
    patience = Patience(0.25)
    patience.batch_ended(10.0, 0.02, answered=4, waiting=4)
    assert patience.wait_s(10.0, callers=4) > 0
    assert patience.wait_s(10.005, callers=6) == 0
    patience.batch_ended(20.0, 100.0, answered=4, waiting=4)
    assert patience.wait_s(20.0, callers=4) == pytest.approx(0.01)


def test_whoever_comes_later_does_not_wait() -> None:
    patience = Patience(0.25)
    patience.batch_ended(10.0, 0.02, answered=4, waiting=0)
    assert patience.wait_s(10.5, callers=1) == 0


def test_a_caller_alone_does_not_wait() -> None:
    patience = Patience(0.25)
    patience.batch_ended(10.0, 0.02, answered=1, waiting=0)
    assert patience.wait_s(10.001, callers=1) == 0


def test_without_a_share_and_for_short_batches_nobody_waits() -> None:
    for share, took_s in ((0.0, 1.0), (0.25, 0.002)):
        patience = Patience(share)
        patience.batch_ended(10.0, took_s, answered=4, waiting=4)
        assert patience.wait_s(10.0, callers=4) == 0


def test_waits_in_vain_become_rare_and_one_that_pays_brings_them_back() -> None:
    patience = Patience(0.25)
    waited = []
    for batch in range(400):
        patience.batch_ended(batch, 0.02, answered=4, waiting=1)
        waited.append(patience.wait_s(batch, callers=1) > 0)
        patience.wait_s(batch + 0.5, callers=1)
    assert [at for at, was in enumerate(waited) if was][:4] == [0, 2, 6, 14]
    assert sum(waited) < 15

    at = next(batch for batch in range(400, 500) if _waits(patience, batch))
    patience.wait_s(at + 0.5, callers=4)
    assert _waits(patience, at + 1)


def _waits(patience: Patience, now: float) -> bool:
    patience.batch_ended(now, 0.02, answered=4, waiting=1)
    return patience.wait_s(now, callers=1) > 0
