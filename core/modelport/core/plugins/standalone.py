"""Models that nobody configured: skills that need no checkpoint, served under their own names."""

from __future__ import annotations

import msgspec

from modelport.core.config.settings import ModelSettings, Settings
from modelport.core.plugins.registry import Registry

__all__ = ["with_standalone_models"]


def with_standalone_models(settings: Settings, registry: Registry) -> Settings:
    """`settings` with a model for each standalone skill.

    A skill that is the source of a configured model (`loud = skill:shout`) keeps to that name, and a name or alias that is
    taken stays what it is.
    """
    taken = set(settings.models) | {alias for model in settings.models.values() for alias in model.aliases}
    sources = {model.source for model in settings.models.values()}
    added = {
        name: ModelSettings(source=f"skill:{name}")
        for name, skill in sorted(registry.skills.items())
        if skill.standalone and name not in taken and f"skill:{name}" not in sources
    }
    return msgspec.structs.replace(settings, models={**settings.models, **added}) if added else settings
