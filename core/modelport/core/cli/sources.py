"""`[NAME=]SOURCE[@REV]`: what a command line may name as a model."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from modelport.contract.errors import ConfigurationError
from modelport.core.config.rules import name_fault
from modelport.core.config.source import parse_source

__all__ = ["model_flags", "models_of", "named"]

_NAMED = re.compile(r"(?P<name>[\w.:+-]+(/[\w.:+-]+)?)=(?P<source>.+)", re.ASCII)


def named(text: str) -> tuple[str, str]:
    """The name and the source of one argument. Without a name, a Hub id and a family name themselves, and a folder is called
    as it is.

    Raises:
        ConfigurationError: no good name can be made of it.
    """
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
    """The `models` table that a command line describes: `options`, for each of `sources`.

    Raises:
        ConfigurationError: two sources have one name, or options that need a source have none.
    """
    given = {key: value for key, value in options.items() if value not in (None, (), [], False)}
    if given and not sources:
        flags = ", ".join(f"--{_FLAGS.get(key, key).replace('_', '-')}" for key in given)
        raise ConfigurationError(
            f"{flags} says how to serve a model that the command line names, and it names none. Add a SOURCE, or set "
            f"models.NAME.{next(iter(given))} in the configuration."
        )
    if given.get("aliases") and len(sources) > 1:
        raise ConfigurationError("--alias names one model; with several sources on one line it is not clear which.")
    models: dict[str, dict[str, Any]] = {}
    for text in sources:
        name, source = named(text)
        if name in models:
            raise ConfigurationError(
                f"{models[name]['source']!r} and {source!r} would both be served as {name!r}. Write NAME=SOURCE for one of them."
            )
        models[name] = {"source": source, **given}
    return models


_FLAGS = {"aliases": "alias"}


def model_flags(
    *,
    alias: Sequence[str] = (),
    revision: str | None = None,
    dtype: str | None = None,
    max_length: int | None = None,
    backend: str | None = None,
    device: str | None = None,
    task: str | None = None,
    trust_remote_code: bool = False,
    preload: bool = False,
) -> dict[str, Any]:
    """Model flags under the names of their keys.

    Raises:
        ConfigurationError: `device` is a number and no backend is named, or the two contradict.
    """
    if device is not None:
        if device.isdecimal():
            if backend is None:
                raise ConfigurationError(
                    f"--device {device} is the number of a device of which backend? Write --device cuda:{device}."
                )
            device = f"{backend}:{device}"
        elif backend is not None and device.split(":")[0] != backend:
            raise ConfigurationError(f"--device {device} is not a device of --backend {backend}.")
        backend = device
    return {
        "aliases": list(alias),
        "revision": revision,
        "dtype": dtype,
        "max_length": max_length,
        "backend": backend,
        "task": task,
        "trust_remote_code": trust_remote_code,
        "preload": preload,
    }
