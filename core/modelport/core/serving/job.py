"""A job: what a deployment serves; and who plans it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from modelport.contract.card import ModelCard
from modelport.contract.executor import Replica
from modelport.contract.extension import Candidate
from modelport.contract.program import Program
from modelport.core.config.settings import ModelSettings
from modelport.core.placement.record import PlacementRecord
from modelport.core.serving.slot import Slot

__all__ = ["Job", "Plan", "Planner"]


class Job:
    """What a deployment serves.

    Attributes:
        name: The deployment's name: the model's, and what tells it from others of that model.
        model: The model's name.
        settings: The model's configuration.
        card: Its checkpoint.
        skill: The skill that serves it.
        tasks: What it serves, the default first.
        program: What is loaded, or None.
        hardware: The backend or device that requests named, or empty.
        subject: What measurements are kept under: the checkpoint, the program, and all settings that change what it takes.
    """

    def __init__(
        self,
        *,
        name: str,
        model: str,
        settings: ModelSettings,
        card: ModelCard,
        skill: str,
        tasks: tuple[str, ...],
        program: Program | None,
        hardware: str = "",
    ) -> None:
        self.name = name
        self.model = model
        self.settings = settings
        self.card = card
        self.skill = skill
        self.tasks = tasks
        self.program = program
        self.hardware = hardware
        digest = program.digest if program is not None else ""
        sizes = f"{settings.dtype}:{settings.max_length}:{settings.max_items}:{settings.threads}"
        options = hashlib.sha256(repr(sorted(settings.backend_options.items())).encode()).hexdigest()[:8]
        self.subject = f"{card.source or model}@{card.revision}:{digest}:{sizes}:{options}"


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """Where to load, best first, the record of why, and the places that are avoided because the model failed there."""

    order: Sequence[Candidate]
    record: PlacementRecord
    failing: Mapping[str, str] = {}


class Planner(Protocol):
    """Decides where a deployment may run, and makes its replicas."""

    async def plan(self, job: Job, failing: Mapping[str, str]) -> Plan:
        """Where to load; also fetches what a load needs beside the card. Raises `ModelportError` if nothing can work."""

    def replica(self, job: Job, slot: Slot) -> Replica:
        """A replica for a slot, not started."""

    def loaded(self, job: Job, slot: Slot) -> None:
        """Notes what the load of a slot took."""
