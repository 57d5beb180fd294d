"""The names that a request may use."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from modelport.contract.errors import NotFound
from modelport.core.catalog.families import PREFIX, Families, family_name
from modelport.core.config.schema import nearest, shown
from modelport.core.config.settings import ModelSettings, Settings

__all__ = ["Names"]

_MOST_LISTED = 10


class Names:
    """Models by name and alias and, where `allow_families` is set, families.

    Args:
        settings: Names the models.
        models: The models, if there are more than the settings name (standalone skills).
    """

    def __init__(self, settings: Settings, models: Mapping[str, ModelSettings] | None = None) -> None:
        self._models = settings.models if models is None else models
        self._aliases = {alias: name for name, model in self._models.items() for alias in model.aliases}
        self._allow_families = settings.allow_families
        self.families = Families()
        """The families to check `hf_*` against; while there are none, any is taken."""

    @property
    def models(self) -> list[str]:
        """The names of all models, in the configuration's order."""
        return list(self._models)

    def aliases(self, name: str) -> tuple[str, ...]:
        """The other names of a model."""
        return tuple(self._models[name].aliases) if name in self._models else ()

    def resolve(self, requested: str, visible: Collection[str] | None = None) -> str:
        """The model that `requested` means.

        Args:
            requested: A name, an alias or a family.
            visible: Names or aliases of the only models that the caller may know of, or None for all.

        Raises:
            NotFound: with the nearest name.
        """
        if requested in self._models:
            return requested
        if requested in self._aliases:
            return self._aliases[requested]
        if requested.startswith(PREFIX) and self._allow_families:
            if not self.families.heads:
                return family_name(requested.removeprefix(PREFIX))
            return family_name(self.families.model_type(requested))
        raise NotFound(f"There is no model {shown(requested)}.{self._hint(requested, visible)}", param="model")

    def _hint(self, requested: str, visible: Collection[str] | None) -> str:
        models = [name for name in self._models if visible is None or not {name, *self.aliases(name)}.isdisjoint(visible)]
        known = [*models, *(alias for alias, name in self._aliases.items() if name in models)]
        if requested.startswith(PREFIX):
            return " Requests may name families only where allow_families = true."
        if meant := _near(requested, known):
            return f" Did you mean {shown(meant)}?"
        if not models:
            return " No model is configured."
        more = f" and {len(models) - _MOST_LISTED} more" if len(models) > _MOST_LISTED else ""
        return f" Models here: {', '.join(models[:_MOST_LISTED])}{more}."


def _near(requested: str, known: Iterable[str]) -> str | None:
    known = list(known)
    folded = {name.lower(): name for name in known}
    last = {name.rpartition("/")[2].lower(): name for name in known}
    word = requested[:200].lower()
    return folded.get(word) or last.get(word.rpartition("/")[2]) or (folded.get(nearest(word, folded) or ""))
