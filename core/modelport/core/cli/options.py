"""Options that several commands share."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import rich_click as click

from modelport.core.config.load import Loaded, load

__all__ = ["config_option", "json_option", "loaded"]

json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
config_option = click.option(
    "--config",
    "-c",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="The TOML configuration; by default `$MODELPORT_CONFIG`, else `modelport.toml` here.",
)


def loaded(config: Path | None, flags: Mapping[str, Any] | None = None) -> Loaded:
    """The configuration in force for this command."""
    return load(config, os.environ, flags or {})
