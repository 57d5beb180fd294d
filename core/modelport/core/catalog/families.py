"""Families: `hf_bert` stands for whatever transformers calls model_type `bert`. Read from the installed version, never typed."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec

from modelport.contract.errors import ConfigurationError, NotFound
from modelport.contract.skill import Skill
from modelport.core.catalog.verification import verification
from modelport.core.config.paths import cache_dir
from modelport.core.config.schema import nearest, shown
from modelport.core.config.settings import Settings

__all__ = ["PREFIX", "Families", "Family", "family_name"]

PREFIX = "hf_"
_CHILD_S = 120.0


def family_name(model_type: str) -> str:
    """The family of a model type: `hf_xlm_roberta` for `xlm-roberta`."""
    return PREFIX + re.sub(r"[-.]", "_", model_type)


class Family(msgspec.Struct, frozen=True, kw_only=True):
    """One family.

    Args:
        name: `hf_<model_type>`, with `_` for `-` and `.`.
        model_type: As transformers writes it.
        heads: The auto-class heads that transformers has for it, the plain model (`feature-extraction`) first.
        tasks: What the installed skills serve with these heads, by the name of the skill that serves it.
        skill: The skill that names a default checkpoint, else the first that serves it, else empty.
        default_checkpoint: The Hub id that the family means without more, or empty.
        verification: Backend → task → `verified`, or what the sweep found instead and why. What was not tried is not there.
        verified_with: The version of transformers that it was found with.
    """

    name: str
    model_type: str
    heads: tuple[str, ...]
    tasks: dict[str, str] = {}
    skill: str = ""
    default_checkpoint: str = ""
    verification: dict[str, dict[str, str]] = {}
    verified_with: str = ""

    @property
    def verified(self) -> tuple[str, ...]:
        """The backends on which one of its tasks at least is verified."""
        return tuple(backend for backend, found in self.verification.items() if "verified" in found.values())


class _Stored(msgspec.Struct):
    transformers: str
    heads: dict[str, tuple[str, ...]]


class Families:
    """All families of the installed transformers.

    Args:
        heads: model_type → heads.
        transformers: The version they were read from; empty if they were not.
    """

    def __init__(self, heads: Mapping[str, tuple[str, ...]] | None = None, transformers: str = "") -> None:
        self.heads = dict(heads or {})
        self.transformers = transformers
        self._types = {family_name(model_type): model_type for model_type in self.heads}

    @classmethod
    def cached(cls, settings: Settings) -> Families | None:
        """The families, if a child has read them from this version before. Reads one small file."""
        installed = _transformers_version()
        try:
            stored = msgspec.json.decode(_file(settings, installed).read_bytes(), type=_Stored)
        except (OSError, msgspec.DecodeError):
            return None
        return cls(stored.heads, stored.transformers) if stored.heads and stored.transformers == installed else None

    @classmethod
    async def load(cls, settings: Settings) -> Families:
        """The families, through a child process the first time.

        Raises:
            ConfigurationError: transformers is not installed, or its mappings cannot be read.
        """
        found = cls.cached(settings)
        if found is not None:
            return found
        installed = _transformers_version()
        if not installed:
            raise ConfigurationError("Families are read from transformers, which is not installed. Try: pip install transformers")
        heads = await _ask_child()
        file = _file(settings, installed)
        with suppress(OSError):
            file.parent.mkdir(parents=True, exist_ok=True)
            temporary = file.with_suffix(f".{os.getpid()}")
            temporary.write_bytes(msgspec.json.encode(_Stored(installed, heads)))
            temporary.replace(file)
        return cls(heads, installed)

    @property
    def names(self) -> list[str]:
        """Every family's name, sorted."""
        return sorted(self._types)

    def model_type(self, name: str) -> str:
        """The model type of `name`, which may be written with `-` and `.` or with `_`.

        Raises:
            NotFound: with the nearest family.
        """
        wanted = family_name(name.removeprefix(PREFIX))
        if wanted in self._types:
            return self._types[wanted]
        meant = nearest(wanted, self._types)
        version_text = f"transformers {self.transformers}" if self.transformers else "the installed transformers"
        raise NotFound(f"{shown(name)} is no family of {version_text}.{f' Did you mean {meant}?' if meant else ''}")

    def family(self, name: str, skills: Mapping[str, Skill]) -> Family:
        """The family `name`, as the installed skills serve it.

        Of several skills, the one with the plainest head serves it, then the first in `skills`.

        Raises:
            NotFound: with the nearest family.
        """
        model_type = self.model_type(name)
        heads = self.heads[model_type]
        tasks: dict[str, str] = {}
        skill = checkpoint = ""
        # Heads first, so that the plain model (feature-extraction) goes before what stands on it.
        for head in heads:
            for skill_name, each in skills.items():
                for task in each.heads.get(head, ()):
                    tasks.setdefault(task, skill_name)
                if head in each.heads and not checkpoint and (default := each.default_checkpoints.get(model_type)):
                    skill, checkpoint = skill_name, default
        if not skill and tasks:
            skill = next(iter(tasks.values()))
        findings = verification()
        return Family(
            name=family_name(model_type),
            model_type=model_type,
            heads=heads,
            tasks=tasks,
            skill=skill,
            default_checkpoint=checkpoint,
            verification=findings.families.get(model_type, {}),
            verified_with=findings.transformers,
        )

    def all(self, skills: Mapping[str, Skill]) -> list[Family]:
        """Every family, sorted by name."""
        return [self.family(name, skills) for name in self.names]

    def checkpoint(self, name: str, skills: Mapping[str, Skill]) -> str:
        """The Hub id that the family `name` means.

        Raises:
            NotFound: there is no such family.
            ConfigurationError: no installed skill serves it, or none names a checkpoint.
        """
        family = self.family(name, skills)
        if family.default_checkpoint:
            return family.default_checkpoint
        if not family.tasks:
            have = ", ".join(sorted(skills)) or "none"
            raise ConfigurationError(
                f"No installed skill serves {family.name} (heads {', '.join(family.heads)}). Installed skills: {have}. "
                "Install one that does."
            )
        raise ConfigurationError(
            f"{family.name} has no default checkpoint. Give one instead of the family: a Hub id or a folder of a "
            f"{family.model_type} model."
        )


def _transformers_version() -> str:
    try:
        return version("transformers")
    except PackageNotFoundError:
        return ""


def _file(settings: Settings, installed: str) -> Path:
    return cache_dir(settings) / "families" / f"transformers-{installed}.json"


async def _ask_child() -> dict[str, tuple[str, ...]]:
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "modelport.core.catalog.mappings", stdin=DEVNULL, stdout=PIPE, stderr=PIPE, start_new_session=True
    )
    try:
        out, err = await asyncio.wait_for(child.communicate(), _CHILD_S)
    except TimeoutError:
        raise ConfigurationError(
            f"Reading transformers' mappings took over {_CHILD_S:g} s. Try again when the machine is less busy."
        ) from None
    finally:
        if child.returncode is None:
            with suppress(ProcessLookupError):
                child.kill()
            await child.wait()
    if child.returncode != 0:
        last = err.decode("utf-8", "replace").strip().rpartition("\n")[2]
        raise ConfigurationError(f"transformers' mappings cannot be read: {last or f'exit status {child.returncode}'}")
    return msgspec.json.decode(out, type=dict[str, tuple[str, ...]])
