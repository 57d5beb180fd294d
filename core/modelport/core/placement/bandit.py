"""Which of several interchangeable arms to take, learned from rewards. Pure: numbers in, a decision out.

Thompson sampling with beliefs that fade (V. Raj and S. Kalyani, "Taming Non-stationary Bandits: A Bayesian Approach", 2017): an
arm's reward, from 0 to 1, has a Beta belief; NumPy draws from each, and the highest draw is taken. Exploration is bounded: over
the bound the arm with the best mean is taken. A decision holds all that it was made of, so a log of decisions replays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

__all__ = ["Arm", "Bandit", "Decision", "choose", "decided", "learn", "replay", "reward"]

FADE = 0.99
"""What is left of old evidence after each new observation: about the last hundred count."""


class Arm(msgspec.Struct, frozen=True):
    """What is believed of an arm: the faded sums of its rewards and of what they lacked to 1, and how often it was observed."""

    good: float = 0.0
    bad: float = 0.0
    count: int = 0

    @property
    def mean(self) -> float:
        """The expected reward; 0.5 of an arm that was never observed."""
        return (1 + self.good) / (2 + self.good + self.bad)


class Bandit(msgspec.Struct, frozen=True):
    """A question that is asked again and again, and what is known of its arms.

    `scale_s` is the latency that is worth half a reward, fixed by the first observation.
    """

    arms: Mapping[str, Arm] = {}
    decisions: int = 0
    explored: int = 0
    scale_s: float = 0.0


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """An arm that was chosen, and everything that the choice followed from."""

    chosen: str
    best: str
    arms: Mapping[str, Arm]
    seed: int
    explore: float
    decisions: int
    explored: int


def choose(bandit: Bandit, names: Sequence[str], seed: int, explore: float) -> Decision:
    """Chooses one of `names`, of which there is one at least. At most the share `explore` of decisions is for another than the
    best."""
    arms = {name: bandit.arms.get(name, Arm()) for name in names}
    best = max(arms, key=lambda name: arms[name].mean)
    random = np.random.default_rng(seed)
    drawn = {name: float(random.beta(1 + arm.good, 1 + arm.bad)) for name, arm in arms.items()}
    wanted = max(drawn, key=lambda name: drawn[name])
    may_explore = bandit.explored < explore * (bandit.decisions + 1)
    return Decision(
        chosen=wanted if may_explore else best,
        best=best,
        arms=arms,
        seed=seed,
        explore=explore,
        decisions=bandit.decisions,
        explored=bandit.explored,
    )


def decided(bandit: Bandit, decision: Decision) -> Bandit:
    """The bandit after a decision."""
    explored = bandit.explored + (decision.chosen != decision.best)
    return msgspec.structs.replace(bandit, decisions=bandit.decisions + 1, explored=explored)


def learn(bandit: Bandit, name: str, value: float) -> Bandit:
    """The bandit after an arm brought `value`, from 0 to 1. All beliefs fade a little, those of arms that were not taken too."""
    arms = {other: Arm(arm.good * FADE, arm.bad * FADE, arm.count) for other, arm in bandit.arms.items()}
    old = arms.get(name, Arm())
    arms[name] = Arm(old.good + value, old.bad + 1 - value, old.count + 1)
    return msgspec.structs.replace(bandit, arms=arms)


def reward(seconds: float, scale_s: float) -> float:
    """1 for no time at all, 0.5 for `scale_s`, towards 0 for ever."""
    return scale_s / (scale_s + seconds) if scale_s + seconds > 0 else 1.0


def replay(decision: Decision) -> Decision:
    """The decision as it follows from its own numbers: equal to it, or the log was tampered with."""
    bandit = Bandit(decision.arms, decision.decisions, decision.explored)
    return choose(bandit, list(decision.arms), decision.seed, decision.explore)
