"""The learner: remembers what was measured, across restarts, and chooses among what is interchangeable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import structlog
from cachetools import LRUCache

from modelport.contract.errors import InvalidRequest, NotFound
from modelport.contract.reply import Timings, Usage
from modelport.core.config.files import write_whole
from modelport.core.config.settings import LearningSettings
from modelport.core.placement import bandit as bandits
from modelport.core.placement.bandit import Bandit, Decision
from modelport.core.placement.measured import Measured
from modelport.core.serving.clock import Clock
from modelport.core.serving.job import Job
from modelport.core.serving.ticket import Ticket

__all__ = ["Learner"]

_log = structlog.get_logger("modelport.learning")
_SAVE_S = 30.0
_REMEMBERED = 10_000
_BAD = frozenset({"model_failed", "device_failed", "out_of_memory", "not_numbers"})
"""Ends of a request that speak against where it ran; others are its caller's doing."""


class _File(msgspec.Struct, frozen=True):
    measured: dict[str, dict[str, Measured]] = {}
    bandits: dict[str, Bandit] = {}


class Learner:
    """Two kinds of question have bandits: `task:NAME`, whose arms are the models that do the task, and `place:…`, whose arms are
    the places where one model can be loaded.

    Args:
        settings: How much may be explored.
        path: Where it is kept; a file that cannot be read is begun anew.
        clock: The time.
    """

    def __init__(self, settings: LearningSettings, path: Path, clock: Clock) -> None:
        self._settings = settings
        self._path = path
        self._clock = clock
        self._requests: LRUCache[tuple[str, str], tuple[str, str]] = LRUCache(_REMEMBERED)
        self._is_dirty = False
        file = _read(path)
        self._measured, self._bandits = file.measured, file.bandits

    # ----------------------------------------------------------------------------------------------------- measuring

    def measured(self, job: Job) -> Mapping[str, Measured]:
        """What is known of a job, by place."""
        return self._measured.get(job.subject, {})

    def loaded(self, job: Job, place: str, load_s: float, memory_bytes: int) -> None:
        """Notes a load."""
        known = self._measured.setdefault(job.subject, {})
        known[place] = known.get(place, Measured()).loaded(load_s, memory_bytes)
        self._changed()

    def finished(self, job: Job, ticket: Ticket, caller: str, status: str, usage: Usage, timings: Timings) -> None:
        """Notes the end of a request."""
        if ticket.options.request_id:
            self._requests[caller, ticket.options.request_id] = (ticket.task, job.model)
        if not ticket.place or ticket.is_emulated:
            return
        if status == "ok" and timings.run_s > 0:
            seconds = timings.run_s / max(usage.completion_tokens, 1)
            known = self._measured.setdefault(job.subject, {})
            known[ticket.place] = known.get(ticket.place, Measured()).answered(seconds)
            self._observe(f"task:{ticket.task}", job.model, seconds)
            self._observe(f"place:{job.subject}", ticket.place, seconds)
        elif status in _BAD:
            self._learn(f"task:{ticket.task}", job.model, 0.0)
            self._learn(f"place:{job.subject}", ticket.place, 0.0)

    def rate(self, request_id: str, caller: str, score: float) -> None:
        """Notes what a caller thinks of an answer, from 0 (useless) to 1: one more observation of the model that gave it.

        Raises:
            NotFound: the caller has no such request that waits for a rating.
            InvalidRequest: the score is not between 0 and 1.
        """
        if not 0 <= score <= 1:
            raise InvalidRequest(f"score is {score:g}, and must be between 0 and 1.", param="score")
        known = self._requests.pop((caller, request_id), None)
        if known is None:
            raise NotFound(
                f"No request {request_id!r} of yours waits for a rating: its id is in the answer's header x-request-id, the last "
                f"{_REMEMBERED} are remembered, and each can be rated once.",
                param="request_id",
            )
        task, model = known
        self._learn(f"task:{task}", model, score)

    # ------------------------------------------------------------------------------------------------------ choosing

    def model(self, task: str, names: Sequence[str]) -> str:
        """One of the models that do a task; of a single one there is nothing to learn."""
        return names[0] if len(names) == 1 else self._choose(f"task:{task}", names).chosen

    def place(self, job: Job, places: Sequence[str]) -> str | None:
        """The place to load at first, where the configuration lets places be tried; else None."""
        if not self._settings.places or len(places) < 2:
            return None
        return self._choose(f"place:{job.subject}", places).chosen

    def recommendations(self, candidates: Mapping[str, Sequence[str]]) -> list[dict[str, Any]]:
        """For each task the models that do it (`candidates`), the best first, with what is believed of each. Decides nothing."""
        told = []
        for task, names in candidates.items():
            bandit = self._bandits.get(f"task:{task}", Bandit())
            arms = [(name, bandit.arms.get(name, bandits.Arm())) for name in names]
            arms.sort(key=lambda each: -each[1].mean)
            told.append(
                {
                    "task": task,
                    "model": arms[0][0] if arms else None,
                    "decisions": bandit.decisions,
                    "explored": bandit.explored,
                    "arms": [{"model": name, "reward": round(arm.mean, 4), "observations": arm.count} for name, arm in arms],
                }
            )
        return told

    def _choose(self, question: str, names: Sequence[str]) -> Decision:
        bandit = self._bandits.get(question, Bandit())
        decision = bandits.choose(bandit, names, seed=bandit.decisions, explore=self._settings.explore)
        self._bandits[question] = bandits.decided(bandit, decision)
        self._changed()
        _log.info("decided", question=question, **msgspec.to_builtins(decision))
        return decision

    def _observe(self, question: str, arm: str, seconds: float) -> None:
        bandit = self._bandits.get(question, Bandit())
        if not bandit.scale_s:
            bandit = self._bandits[question] = msgspec.structs.replace(bandit, scale_s=seconds)
        self._learn(question, arm, bandits.reward(seconds, bandit.scale_s))

    def _learn(self, question: str, arm: str, value: float) -> None:
        self._bandits[question] = bandits.learn(self._bandits.get(question, Bandit()), arm, value)
        self._changed()

    # ------------------------------------------------------------------------------------------------------- keeping

    def _changed(self) -> None:
        if not self._is_dirty:
            self._is_dirty = True
            self._clock.later(_SAVE_S, self.save)

    def save(self) -> None:
        """Writes what is new to disk; a disk that takes nothing is logged, and costs only the memory of it."""
        if not self._is_dirty:
            return
        self._is_dirty = False
        try:
            write_whole(self._path, msgspec.json.encode(_File(self._measured, self._bandits)))
        except OSError as error:
            _log.warning("not kept", file=str(self._path), cause=error.strerror or str(error))


def _read(path: Path) -> _File:
    try:
        return msgspec.json.decode(path.read_bytes(), type=_File)
    except FileNotFoundError:
        return _File()
    except (OSError, msgspec.DecodeError) as error:
        _log.warning("begun anew", file=str(path), cause=str(error))
        return _File()
