"""The catalog: what a name means, what its checkpoint is, and which skill serves it."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from modelport.contract.backend import Progress
from modelport.contract.card import ModelCard
from modelport.contract.errors import ConfigurationError, ModelportError
from modelport.contract.program import Program
from modelport.contract.skill import Claim, Skill
from modelport.core.catalog.cards import card_for_skill, card_from_folder, folder_signature
from modelport.core.catalog.checkpoint import Checkpoints
from modelport.core.catalog.families import Families
from modelport.core.catalog.names import Names
from modelport.core.catalog.refusal import nobody_serves
from modelport.core.config.schema import nearest
from modelport.core.config.settings import ModelSettings, Settings
from modelport.core.config.source import parse_source
from modelport.core.plugins.registry import Registry
from modelport.core.plugins.standalone import with_standalone_models

__all__ = ["Catalog", "Choice", "SkillClaim"]


class SkillClaim(msgspec.Struct, frozen=True, kw_only=True):
    """What one skill says of a checkpoint. `failed` is a claim that raised: `reason` is what it raised."""

    skill: str
    state: Literal["claims", "declines", "failed"]
    tasks: tuple[str, ...] = ()
    score: int = 0
    reason: str = ""


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """The skill that serves a model, and how.

    Args:
        skill: Its name.
        tasks: What it serves, the default first.
        programs: The program of each task; empty for a skill that computes on its own.
        claims: What every skill said, the highest score first.
        reason: Why this one.
    """

    skill: str
    tasks: tuple[str, ...]
    programs: dict[str, Program] = {}
    claims: list[SkillClaim] = []
    reason: str = ""


class Catalog:
    """All that can be served.

    Args:
        settings: Names the models.
        registry: Brings the skills and the resolvers.
    """

    def __init__(self, settings: Settings, registry: Registry) -> None:
        self._settings = settings
        self._skills = registry.skills
        self.models = with_standalone_models(settings, registry).models
        """Every model by name: the configured ones, and one for each standalone skill."""
        self.names = Names(settings, self.models)
        self.families = Families()
        """Empty until `load_families`."""
        self.checkpoints = Checkpoints(settings, registry.resolvers)
        self._cards: dict[str, tuple[str, ModelSettings, ModelCard]] = {}

    async def load_families(self) -> Families:
        """The families of the installed transformers, read the first time they are asked for.

        Raises:
            ConfigurationError: they cannot be read.
        """
        if not self.families.heads:
            self.families = self.names.families = await Families.load(self._settings)
        return self.families

    def model(self, name: str) -> ModelSettings:
        """The settings of a name that `names.resolve` gave; a family's are the defaults."""
        return self.models.get(name) or ModelSettings(source=name)

    async def card(self, name: str, progress: Progress | None = None) -> ModelCard:
        """The card of a model, whose checkpoint is fetched if it is not here yet. Read again only if its files changed.

        Raises:
            ConfigurationError: there is no such checkpoint, or it is broken or unsafe.
            Unavailable: the Hub cannot be reached.
        """
        model = self.model(name)
        parsed = parse_source(model.source, model.revision)
        if parsed.kind == "skill":
            return card_for_skill(name, model)
        if model.trust_remote_code and parsed.kind in ("hub", "family") and not parsed.revision:
            raise ConfigurationError(
                f"The model {name!r} may run its checkpoint's code, so it needs a revision: set models.{name}.revision to the "
                "commit whose code you have read."
            )
        source = model.source
        if parsed.kind == "family":
            source = (await self.load_families()).checkpoint(parsed.value, self._skills)
        folder = await self.checkpoints.fetch(source, model.revision, progress)
        return await asyncio.to_thread(self._read, name, folder, model)

    async def folders(self, program: Program, card: ModelCard, progress: Progress | None = None) -> dict[str, Path]:
        """The folder of every checkpoint that a program names, and `main`, the card's own."""
        found = {"main": Path(card.path)} if card.path else {}
        for key, source in program.checkpoints.items():
            found[key] = await self.checkpoints.fetch(source, None, progress)
        return found

    def _read(self, name: str, folder: Path, model: ModelSettings) -> ModelCard:
        signature = f"{folder}@{folder_signature(folder)}"
        known = self._cards.get(name)
        if known is not None and known[:2] == (signature, model):
            return known[2]
        card = card_from_folder(name, folder, model)
        self._cards[name] = (signature, model, card)
        return card

    def claims(self, card: ModelCard) -> list[SkillClaim]:
        """What every enabled skill says of a checkpoint, the highest score first. A claim that raises is one that failed."""
        found = [_claim(name, skill, card) for name, skill in self._skills.items()]
        return sorted(found, key=lambda each: (-each.score, each.state != "claims", each.skill))

    def choose(self, card: ModelCard, model: ModelSettings) -> Choice:
        """The skill that serves a checkpoint: the one that the configuration names, else the one whose claim scores highest.

        Raises:
            ConfigurationError: none claims it, two claim it equally, or the one that is named cannot serve it.
        """
        claims = self.claims(card)
        parsed = parse_source(model.source)
        forced = model.skill or (parsed.value if parsed.kind == "skill" else None)
        if forced is not None:
            chosen, reason = self._named(card, forced, claims)
        else:
            chosen = _best(card, model, claims, self._skills, self.families.heads)
            reason = chosen.reason
        programs = self._programs(card, chosen.skill)
        tasks = tuple(task for task in chosen.tasks if task in programs) if programs else chosen.tasks
        if model.task is not None and model.task not in tasks:
            have = ", ".join(tasks) or "nothing"
            raise ConfigurationError(
                f"models.{card.name}.task is {model.task!r}, and the skill {chosen.skill!r} serves {have} with this checkpoint. "
                "Set one of these, or another skill."
            )
        if not tasks:
            raise ConfigurationError(
                f"The skill {chosen.skill!r} serves no task with the model {card.name!r}. Name another skill."
            )
        if model.task is not None:
            tasks = (model.task, *(task for task in tasks if task != model.task))
        return Choice(
            skill=chosen.skill,
            tasks=tasks,
            programs={task: programs[task] for task in tasks} if programs else {},
            claims=claims,
            reason=reason,
        )

    def _named(self, card: ModelCard, name: str, claims: list[SkillClaim]) -> tuple[SkillClaim, str]:
        claim = next((each for each in claims if each.skill == name), None)
        if claim is None:
            meant = nearest(name, self._skills)
            hint = f"Did you mean {meant}?" if meant else f"Try: pip install modelport-skill-{name.replace('_', '-')}"
            raise ConfigurationError(
                f"The model {card.name!r} needs the skill {name!r}, which is not among the enabled ones "
                f"({_listed(self._skills)}). {hint}"
            )
        if claim.state == "failed":
            raise ConfigurationError(f"The skill {name!r} failed over the model {card.name!r}: {claim.reason}")
        if claim.state == "declines":
            # Named by a person, so what it would rather not do is still its to try.
            every = tuple(task.name for task in self._skills[name].tasks)
            return msgspec.structs.replace(
                claim, tasks=every
            ), "named in the configuration, though it does not claim the checkpoint"
        return claim, "named in the configuration"

    def _programs(self, card: ModelCard, name: str) -> Mapping[str, Program]:
        try:
            return dict(self._skills[name].programs(card))
        except ModelportError:
            raise
        except Exception as error:
            raise ConfigurationError(
                f"The skill {name!r} cannot make a program for the model {card.name!r}: {type(error).__name__}: {error}"
            ) from error


def _claim(name: str, skill: Skill, card: ModelCard) -> SkillClaim:
    claim: Any
    try:
        claim = skill.claim(card)
    except Exception as error:
        return SkillClaim(skill=name, state="failed", reason=f"{type(error).__name__}: {error}")
    if claim is None:
        return SkillClaim(skill=name, state="declines", reason="it does not serve this checkpoint")
    if not isinstance(claim, Claim):
        return SkillClaim(
            skill=name, state="failed", reason=f"claim returned a {type(claim).__name__}; it returns a Claim or None"
        )
    strange = sorted(set(claim.tasks) - {task.name for task in skill.tasks})
    if strange or not claim.tasks:
        what = f"it claims the task {strange[0]!r}, which it does not define" if strange else "it claims no task"
        return SkillClaim(skill=name, state="failed", reason=what)
    return SkillClaim(skill=name, state="claims", tasks=tuple(claim.tasks), score=claim.score, reason=claim.reason)


def _best(
    card: ModelCard,
    model: ModelSettings,
    claims: list[SkillClaim],
    skills: Mapping[str, Skill],
    known_types: Collection[str],
) -> SkillClaim:
    candidates = [claim for claim in claims if claim.state == "claims"]
    if model.task is not None:
        candidates = [claim for claim in candidates if model.task in claim.tasks]
    if not candidates:
        raise ConfigurationError(nobody_serves(card, model, claims, skills, known_types))
    top = [claim for claim in candidates if claim.score == candidates[0].score]
    if len(top) > 1:
        names = " and ".join(f"{claim.skill} ({', '.join(claim.tasks)})" for claim in top)
        raise ConfigurationError(
            f"The skills {names} claim the model {card.name!r} equally (score {top[0].score}). "
            f"Set models.{card.name}.skill to the one you want, for example {top[0].skill!r}."
        )
    return top[0]


def _listed(skills: Mapping[str, Skill]) -> str:
    return ", ".join(sorted(skills)) or "none"
