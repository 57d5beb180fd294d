"""`[NAME=]SOURCE[@REV]`: how a command line, or a program that makes an `Engine`, names a model."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from modelport.contract.errors import ConfigurationError
from modelport.core.config.rules import name_fault
from modelport.core.config.source import parse_source

__all__ = ["is_given", "models_of", "named"]

_NAMED = re.compile(r"(?P<name>[\w.:+-]+(/[\w.:+-]+)?)=(?P<source>.+)", re.ASCII)


def named(text: str) -> tuple[str, str]:
    """The name and the source of one argument. Without a name, a Hub id and a family name themselves, and a folder is called
    as it is.

    Raises:
        ConfigurationError: no good name can be made of it.
    """
    if not text:
        raise ConfigurationError("An empty text names no model. Give a Hub id (org/model) or a folder.")
    match = None if text.startswith(("/", ".", "~")) or Path(text).exists() else _NAMED.fullmatch(text)
    if match:
        return match["name"], match["source"]
    source = parse_source(text)
    name = source.value
    if source.kind == "folder":
        name = Path(source.value).resolve().name
    elif source.kind == "other":
        name = re.split(r"[/:]", source.value.rstrip("/"))[-1]
    if not name or name_fault(name):
        raise ConfigurationError(f"{text!r} gives no name to serve it under. Write NAME=SOURCE, for example my-model={text}")
    return name, text


def models_of(sources: Sequence[str], options: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The `models` table that sources describe: `options`, for each of them.

    Raises:
        ConfigurationError: two sources have one name, a folder does not exist, or options that need a source have none.
    """
    given = {key: value for key, value in options.items() if is_given(value)}
    if given and not sources:
        raise ConfigurationError(
            f"{' and '.join(given)} would say how to serve a model, and none is named here. Name one, such as org/model or "
            f"./folder, or set models.NAME.{next(iter(given))} in the configuration."
        )
    if given.get("aliases") and len(sources) > 1:
        raise ConfigurationError(
            "An alias names one model; with several sources it is not clear which. Set it in the configuration."
        )
    models: dict[str, dict[str, Any]] = {}
    for text in sources:
        name, source = named(text)
        parsed = parse_source(source)
        if parsed.kind == "folder" and not Path(parsed.value).is_dir():
            raise ConfigurationError(f"The folder {parsed.value} does not exist. Correct it, or give a Hub id (org/model).")
        if name in models:
            raise ConfigurationError(
                f"{models[name]['source']!r} and {source!r} would both be served as {name!r}. Write NAME=SOURCE for one of them."
            )
        models[name] = {"source": source, **given}
    return models


def is_given(value: Any) -> bool:
    """Whether an option was given: a number that is 0 was, a flag that is off or an empty list was not."""
    return value is not None and value is not False and value != [] and value != ()
