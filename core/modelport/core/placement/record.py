"""The whole story of where a model runs, for `modelport explain` and GET /v1/models/{id}/placement."""

from __future__ import annotations

import msgspec

from modelport.contract.executor import ReplicaReady
from modelport.contract.program import Forward, Module, Program, step_name
from modelport.contract.runner import Limits
from modelport.core.placement.decide import Placement

__all__ = ["AttemptRecord", "CandidateRecord", "PlacementRecord", "core_reductions", "record_of"]


class CandidateRecord(msgspec.Struct, kw_only=True, frozen=True):
    """One place that was weighed. `place` counts from 1, best first; None is out. `answer` is yes, converted or no."""

    backend: str
    devices: list[str]
    answer: str
    reason: str
    place: int | None
    memory_bytes: int
    dtype: str
    rank: int
    latency_s: float | None


class AttemptRecord(msgspec.Struct, kw_only=True, frozen=True):
    """One load that was tried; `error` is empty if it worked."""

    backend: str
    devices: list[str]
    seconds: float
    error: str = ""


class PlacementRecord(msgspec.Struct, kw_only=True):
    """A decision and what became of it.

    Args:
        decision: The decision as a sentence; after a load it says what really happened.
        facts: What the loaded runner said of itself: the dtype in use, the converter, where sampling runs.
        core_reductions: Steps of the program that the core computes after each run because the backend does not.
        memory_estimate_bytes: What the verdict expected.
        memory_measured_bytes: What the load took, of each replica.
        notes: What else a person should know (a fallback, thrashing).
    """

    model: str
    skill: str = ""
    tasks: list[str] = []
    program: str = ""
    state: str = "declared"
    decision: str = ""
    backend: str = ""
    devices: list[str] = []
    replicas: int = 0
    candidates: list[CandidateRecord] = []
    attempts: list[AttemptRecord] = []
    facts: dict[str, str] = {}
    core_reductions: list[str] = []
    memory_estimate_bytes: int = 0
    memory_measured_bytes: int = 0
    load_s: float = 0.0
    notes: list[str] = []

    def loaded(self, backend: str, devices: list[str], ready: ReplicaReady, program: Program | None) -> None:
        """Puts down what a load gave."""
        self.backend, self.devices = backend, devices
        self.facts = dict(ready.facts)
        self.memory_measured_bytes = ready.memory_bytes
        self.load_s = ready.load_s
        self.core_reductions = core_reductions(program, ready.limits)


def record_of(model: str, skill: str, tasks: list[str], program: Program | None, placement: Placement) -> PlacementRecord:
    """The record of a decision before anything is loaded."""
    candidates = [
        CandidateRecord(
            backend=weighed.candidate.backend,
            devices=[device.id for device in weighed.candidate.devices],
            answer=weighed.candidate.verdict.answer,
            reason=weighed.reason,
            place=None if weighed.place is None else weighed.place + 1,
            memory_bytes=weighed.candidate.verdict.memory_bytes,
            dtype=weighed.candidate.verdict.dtype,
            rank=weighed.candidate.rank,
            latency_s=weighed.candidate.latency_s,
        )
        for weighed in placement.weighed
    ]
    first = placement.order[0] if placement.order else None
    return PlacementRecord(
        model=model,
        skill=skill,
        tasks=tasks,
        program=program.digest if program else "",
        decision=placement.sentence,
        backend=first.backend if first else "",
        devices=[device.id for device in first.devices] if first else [],
        candidates=candidates,
        memory_estimate_bytes=first.verdict.memory_bytes if first else 0,
    )


def core_reductions(program: Program | None, limits: Limits | None) -> list[str]:
    """Names of the program's steps that `limits.reductions` does not list: the core applies them."""
    if program is None or limits is None:
        return []
    names = {
        step_name(step)
        for entry in program.entries.values()
        if isinstance(entry, Forward | Module)
        for output in entry.outputs
        for step in output.chain
    }
    return sorted(names - limits.reductions)
