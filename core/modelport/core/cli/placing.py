"""The decision that a server would make about a model, without one."""

from __future__ import annotations

import msgspec

from modelport.contract.card import ModelCard
from modelport.contract.program import Program
from modelport.core.catalog.catalog import SkillClaim
from modelport.core.cli.parts import Parts
from modelport.core.cli.probing import probe
from modelport.core.cli.progress import ProgressView
from modelport.core.config.paths import state_dir
from modelport.core.placement.decide import budgets, decide
from modelport.core.placement.hooks import Hooks
from modelport.core.placement.record import PlacementRecord, record_of
from modelport.core.serving.clock import LoopClock
from modelport.core.serving.job import Job
from modelport.core.serving.learner import Learner

__all__ = ["Explanation", "place"]


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """A checkpoint, what every skill says of it and why one serves it, and the placement of each program that its tasks need."""

    card: ModelCard
    reason: str
    claims: list[SkillClaim]
    placements: list[PlacementRecord]


async def place(parts: Parts) -> Explanation:
    """Reads the checkpoint, asks the skills, probes the backends, and weighs. Loads nothing.

    Raises:
        ConfigurationError: there is no such checkpoint, or no skill that serves it.
    """
    catalog, registry, settings = parts.catalog, parts.registry, parts.settings
    model = catalog.model(parts.name)
    with ProgressView() as view:
        card = await catalog.card(parts.name, view.task(parts.name))
    choice = catalog.choose(card, model)
    probes = await probe(parts)
    devices = [device for found in probes.values() for device in found.devices]
    # tasks with equal programs share one loaded model, and so one decision
    shared = {program.digest: program for program in choice.programs.values()}
    hooks = Hooks(registry.manager)
    learner = Learner(settings.learning, state_dir(settings) / "learned.json", LoopClock())
    placements = []
    programs: list[Program | None] = [*shared.values()]
    for program in programs or [None]:
        tasks = [task for task in choice.tasks if program is None or choice.programs[task].digest == program.digest]
        job = Job(
            name=parts.name, model=parts.name, settings=model, card=card, skill=choice.skill, tasks=tuple(tasks), program=program
        )
        decision = decide(
            name=parts.name,
            model=model,
            card=card,
            program=program,
            backends=registry.backends,
            probes=probes,
            budgets=budgets(settings.memory, devices),
            measured=learner.measured(job),
            choose=hooks.choose_placement,
        )
        placements.append(record_of(parts.name, choice.skill, tasks, program, decision))
    return Explanation(card=card, reason=choice.reason, claims=choice.claims, placements=placements)
