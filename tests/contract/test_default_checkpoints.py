"""Families by name: `hf_gpt2` means a checkpoint, for the best-known of them."""

from __future__ import annotations

import re

from modelport.core.catalog.families import Families
from modelport.core.catalog.mappings import heads_of
from modelport.core.config.settings import Settings
from modelport.core.plugins.discover import discover


def families() -> Families:
    from transformers.models.auto import modeling_auto

    names = {name: list(value) for name, value in vars(modeling_auto).items() if name.endswith("_MAPPING_NAMES")}
    return Families({kind: tuple(heads) for kind, heads in heads_of(names).items()}, "this")


def test_sixty_families_at_least_mean_a_checkpoint() -> None:
    skills = discover(Settings(), ["skills"]).skills

    found = {family.name: family.default_checkpoint for family in families().all(skills) if family.default_checkpoint}

    assert len(found) >= 60
    assert [source for source in found.values() if not re.fullmatch(r"[\w.-]+/[\w.-]+", source)] == []


def test_a_default_checkpoint_is_of_a_type_that_its_skill_serves() -> None:
    heads = families().heads
    for name, skill in discover(Settings(), ["skills"]).skills.items():
        served = {kind for kind, known in heads.items() if not set(known).isdisjoint(skill.heads)}
        assert set(skill.default_checkpoints) - served == set(), name
