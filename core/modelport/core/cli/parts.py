"""The parts of a server that commands use without serving: plugins and the catalog."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from modelport.contract.errors import NotFound
from modelport.core.catalog.catalog import Catalog
from modelport.core.cli.options import loaded
from modelport.core.config.named import is_given, models_of
from modelport.core.config.settings import Settings
from modelport.core.observe.logs import configure
from modelport.core.plugins.discover import discover
from modelport.core.plugins.registry import Registry

__all__ = ["Parts", "assemble"]


class Parts(msgspec.Struct, frozen=True):
    """What was put together; `name` is the model that the command is about, or empty."""

    settings: Settings
    registry: Registry
    catalog: Catalog
    name: str = ""


def assemble(config: Path | None, model: str | None = None, options: Mapping[str, Any] | None = None) -> Parts:
    """Plugins and catalog as a server with this configuration would have them.

    Args:
        config: The configuration file, or None for the usual one.
        model: A configured name or alias, or a source (`org/model`, a folder, a family) as `serve` takes them.
        options: Keys of the model, over what is configured.
    """
    settings = loaded(config).settings
    # what went on beside the answer is of interest only where something went wrong
    configure("warning", settings.log_format)
    registry = discover(settings)
    catalog = Catalog(settings, registry)
    if model is None:
        return Parts(settings, registry, catalog)
    try:
        name = catalog.names.resolve(model)
        table = {key: value for key, value in (options or {}).items() if is_given(value)}
        flags = {"models": {name: {"source": catalog.model(name).source, **table}}} if table else {}
    except NotFound:
        described = models_of([model], options or {})
        name, flags = next(iter(described)), {"models": described}
    if flags:
        settings = loaded(config, flags).settings
        registry = discover(settings)  # again, for it refuses a backend that is not there
        catalog = Catalog(settings, registry)
    return Parts(settings, registry, catalog, name)
