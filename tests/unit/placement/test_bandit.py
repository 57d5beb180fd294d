from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelport.core.placement.bandit import Arm, Bandit, Decision, choose, decided, learn, replay, reward


def walk(latency, steps: int, explore: float = 0.1, arms: tuple[str, ...] = ("a", "b")) -> tuple[float, list[Decision]]:
    """Total seconds of a bandit that pays `latency(arm, step)` for each choice, and its log."""
    bandit, total, log = Bandit(scale_s=0.1), 0.0, []
    for step in range(steps):
        decision = choose(bandit, arms, seed=step, explore=explore)
        seconds = latency(decision.chosen, step)
        bandit = learn(decided(bandit, decision), decision.chosen, reward(seconds, bandit.scale_s))
        total += seconds
        log.append(decision)
    return total, log


def drift(arm: str, step: int) -> float:
    """The faster arm becomes the slower one after half the way."""
    noise = np.random.default_rng(step).uniform(0.8, 1.2)
    return noise * (0.05 if (arm == "a") == (step < 1000) else 0.5)


def test_under_drift_its_regret_is_below_that_of_the_best_fixed_choice():
    best = sum(min(drift(arm, step) for arm in "ab") for step in range(2000))
    fixed = min(sum(drift(arm, step) for step in range(2000)) for arm in "ab")
    learned, _ = walk(drift, 2000)
    assert learned - best < 0.4 * (fixed - best)


def test_a_log_replays_to_the_same_decisions_even_as_text():
    _, log = walk(drift, 300)
    lines = [msgspec.json.encode(decision) for decision in log]
    again = [msgspec.json.decode(line, type=Decision) for line in lines]
    assert [replay(decision) for decision in again] == log
    forged = msgspec.structs.replace(log[-1], chosen={"a": "b", "b": "a"}[log[-1].chosen])
    assert replay(forged) != forged


@pytest.mark.parametrize("explore", [0.0, 0.05, 0.3])
def test_exploration_is_bounded(explore):
    _, log = walk(lambda arm, step: 0.1, 1000, explore)
    assert sum(decision.chosen != decision.best for decision in log) <= explore * 1000 + 1


def test_an_arm_that_fails_is_left():
    bandit = Bandit()
    for _ in range(20):
        bandit = learn(learn(bandit, "sound", 0.5), "broken", 0.0)
    chosen = [choose(bandit, ["broken", "sound"], seed, 1.0).chosen for seed in range(200)]
    assert chosen.count("sound") > 190


@given(st.dictionaries(st.text(max_size=5), st.tuples(st.floats(0, 100), st.floats(0, 100)), min_size=1), st.integers(0, 2**32))
def test_a_decision_is_one_of_the_arms_and_replays(table, seed):
    bandit = Bandit({name: Arm(good, bad) for name, (good, bad) in table.items()})
    decision = choose(bandit, list(table), seed, 0.5)
    assert decision.chosen in table
    assert replay(decision) == decision
