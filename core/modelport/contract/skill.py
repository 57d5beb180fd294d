"""Skills: what a `modelport.skills` plugin registers. A skill turns requests into arrays and arrays into results."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import msgspec

from modelport.contract.card import ModelCard
from modelport.contract.program import Program
from modelport.contract.session import Session, SessionContext
from modelport.contract.task import Task

__all__ = ["Claim", "Skill"]


class Claim(msgspec.Struct, frozen=True):
    """What a skill would do with a checkpoint.

    `tasks` are the tasks it would serve, the natural one first. `score` orders claims on one checkpoint: 100 for a checkpoint
    that says so itself (its architecture, its files), 50 for a likely guess, 10 for a fallback. `reason` is a sentence that
    `modelport explain` shows.
    """

    tasks: tuple[str, ...]
    score: int
    reason: str


class Skill:
    """The base of every skill. One instance lives in the server, one in each worker; it holds no model.

    Attributes:
        name: Its name in configuration, equal to its entry point's.
        tasks: Definitions of the tasks it can serve.
        heads: Which auto-class head makes a family serve which tasks: `{"causal-lm": ("text-generation",)}`.
        default_checkpoints: model_type → Hub id, for `hf_<model_type>` without more.
        preload: Modules that a spare worker imports ahead of time.
        standalone: Whether it needs no checkpoint and is served under its own name as soon as it is enabled, as if the
            configuration said `models.<name> = { source = "skill:<name>" }`.
    """

    name: ClassVar[str]
    tasks: ClassVar[tuple[Task[Any, Any, Any], ...]]
    heads: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    default_checkpoints: ClassVar[Mapping[str, str]] = {}
    preload: ClassVar[tuple[str, ...]] = ()
    standalone: ClassVar[bool] = False

    def claim(self, card: ModelCard) -> Claim | None:
        """Whether it would serve `card`. Runs in the server: pure, fast, no I/O beyond small files of the checkpoint."""
        raise NotImplementedError(f"{type(self).__name__} has no claim")

    def programs(self, card: ModelCard) -> Mapping[str, Program]:
        """The program of each task it would serve for `card`. Tasks with equal programs share one loaded model.

        Empty (the default): no program; the session's `predict` or `handle` does everything itself.
        """
        return {}

    def session(self, context: SessionContext) -> Session:
        """A session for a model that has just been loaded. Runs in the worker, on its CPU pool; may read tokenizers."""
        raise NotImplementedError(f"{type(self).__name__} has no session")
