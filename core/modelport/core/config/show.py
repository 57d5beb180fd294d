"""The configuration as `modelport config show` prints it: every key in force, its value and where that came from."""

from __future__ import annotations

import inspect as python
import json
import re
from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import inspect

from modelport.core.config.environment import variable
from modelport.core.config.load import Loaded
from modelport.core.config.schema import Path, dotted, expected, schema

__all__ = ["KeyHelp", "ShownKey", "describe", "show", "toml_text"]


class ShownKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key in force. `origin` is `file`, `env`, `flag` or `default`; `place` is the file or the variable."""

    key: str
    value: Any
    origin: str
    place: str = ""


class KeyHelp(msgspec.Struct, frozen=True, kw_only=True):
    """What a key means, what it takes, its default and the variable that sets it. `NAME` stands for a model's name."""

    key: str
    help: str
    takes: str
    default: Any
    variable: str


def show(loaded: Loaded) -> list[ShownKey]:
    """Every key in force, in the order of the settings' definition."""
    return [
        ShownKey(
            key=dotted(path),
            value=value,
            origin=_covering(loaded.origins, path, "default"),
            place=_covering(loaded.places, path, ""),
        )
        for path, value in _values(msgspec.to_builtins(loaded.settings))
    ]


def _values(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _values(item, (*path, key))
    elif path:
        yield path, value


def _covering(known: Any, path: Path, missing: str) -> str:
    """What is known of `path`, or of the table that it was set with."""
    return next((str(known[dotted(path[:n])]) for n in range(len(path), 0, -1) if dotted(path[:n]) in known), missing)


def toml_text(value: Any) -> str:
    """A value as TOML writes it; nothing for None, which it cannot write."""
    match value:
        case None:
            return ""
        case bool() | str():
            return json.dumps(value, ensure_ascii=False)
        case dict():
            pairs = ", ".join(f"{dotted((key,))} = {toml_text(item)}" for key, item in value.items())
            return f"{{ {pairs} }}" if pairs else "{}"
        case list():
            return f"[{', '.join(map(toml_text, value))}]"
        case _:
            return str(value)


def describe() -> list[KeyHelp]:
    """Every key there is, from the Structs and their docstrings."""
    return list(_describe(schema(), ()))


def _describe(kind: inspect.StructType, path: Path) -> Iterator[KeyHelp]:
    texts = _arguments(kind.cls)
    for field in kind.fields:
        here = (*path, field.name)
        if isinstance(field.type, inspect.StructType):
            yield from _describe(field.type, here)
        elif isinstance(field.type, inspect.DictType) and isinstance(field.type.value_type, inspect.StructType):
            yield from _describe(field.type.value_type, (*here, "NAME"))
        else:
            default = field.default if field.default is not msgspec.NODEFAULT else _made(field)
            yield KeyHelp(
                key=dotted(here),
                help=texts.get(field.name, ""),
                takes=expected(field.type),
                default=default,
                variable=variable(here),
            )


def _made(field: inspect.Field) -> Any:
    return None if field.default_factory is msgspec.NODEFAULT else field.default_factory()


def _arguments(cls: type) -> dict[str, str]:
    """The `Args:` of a docstring, by name."""
    _, _, section = (python.getdoc(cls) or "").partition("Args:\n")
    found = re.findall(r"^ {4}(\w+): (.*(?:\n {5,}.*)*)", section, re.MULTILINE)
    return {name: re.sub(r"\s+", " ", text) for name, text in found}
