"""Options that several commands share."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import rich_click as click

from modelport.core.config.load import Loaded, load

__all__ = ["config_option", "json_option", "loaded", "server_options"]

F = TypeVar("F", bound=Callable[..., Any])

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


def server_options(function: F) -> F:
    """`--url` and `--key`: which running server is asked, and as whom."""
    key = click.option("--key", envvar="MODELPORT_API_KEY", metavar="KEY", help="An API key; by default `$MODELPORT_API_KEY`.")
    url = click.option(
        "--url",
        default="http://127.0.0.1:8000",
        envvar="MODELPORT_URL",
        metavar="URL",
        help="The server; by default `$MODELPORT_URL`, else `http://127.0.0.1:8000`.",
    )
    return url(key(function))
