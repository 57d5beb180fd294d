"""Skills that need no checkpoint are served under their own names."""

from __future__ import annotations

from modelport.contract.skill import Skill
from modelport.core.config.settings import ModelSettings, Settings
from modelport.core.plugins.registry import Registry
from modelport.core.plugins.standalone import with_standalone_models


class Shout(Skill):
    name = "shout"
    tasks = ()
    standalone = True


class Embedding(Skill):
    name = "embedding"
    tasks = ()


def registry() -> Registry:
    return Registry(skills={"shout": Shout(), "embedding": Embedding()})


def test_only_a_standalone_skill_becomes_a_model() -> None:
    models = with_standalone_models(Settings(), registry()).models

    assert models == {"shout": ModelSettings(source="skill:shout")}


def test_configured_models_come_first_and_stay() -> None:
    settings = Settings(models={"a": ModelSettings(source="org/a")})

    assert list(with_standalone_models(settings, registry()).models) == ["a", "shout"]


def test_a_skill_that_is_already_served_keeps_to_that_name() -> None:
    settings = Settings(models={"loud": ModelSettings(source="skill:shout")})

    assert with_standalone_models(settings, registry()) == settings


def test_a_taken_name_or_alias_stays_what_it_is() -> None:
    for model in (ModelSettings(source="org/shout"), ModelSettings(source="org/x", aliases=["shout"])):
        settings = Settings(models={"x" if model.aliases else "shout": model})

        assert with_standalone_models(settings, registry()) == settings
