"""Checks a tree of plain values against the Structs of `settings`, and finds every fault instead of the first."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec
from msgspec import inspect

from modelport.core.config.settings import Settings

__all__ = ["Fault", "Path", "check", "dotted", "expected", "nearest", "schema", "shown"]

Path = tuple[str | int, ...]
"""The way to a key: `("models", "org/chat", "aliases", 0)`."""

_BARE = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)


class Fault(msgspec.Struct, frozen=True):
    """One thing wrong with the configuration: where, and what to do about it."""

    path: Path
    message: str


def schema() -> inspect.StructType:
    """The type of the whole configuration."""
    kind = inspect.type_info(Settings)
    assert isinstance(kind, inspect.StructType)
    return kind


def dotted(path: Path) -> str:
    """`path` as TOML writes it.

    >>> dotted(("models", "org/chat", "aliases", 0))
    'models."org/chat".aliases[0]'
    """
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += ("." if text else "") + (part if _BARE.fullmatch(part) else json.dumps(part, ensure_ascii=False))
    return text


def nearest(word: str, words: Iterable[str]) -> str | None:
    """The one of `words` that `word` most likely meant, if any is near."""
    found = difflib.get_close_matches(word, list(words), n=1, cutoff=0.6)
    return found[0] if found else None


def shown(value: Any) -> str:
    """A value as a message shows it: short, and in TOML's words."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value if len(value) <= 60 else value[:57] + "…", ensure_ascii=False)
    if isinstance(value, Mapping):
        return "a table"
    if isinstance(value, list | tuple):
        return "a list"
    return "nothing" if value is None else str(value)


def expected(kind: inspect.Type) -> str:
    """What a value of `kind` looks like, in words."""
    match kind:
        case inspect.StructType() | inspect.DictType():
            return "a table"
        case inspect.ListType():
            return "a list of " + expected(kind.item_type).removeprefix("a ").removeprefix("an ") + "s"
        case inspect.BoolType():
            return "true or false"
        case inspect.IntType():
            return "a whole number" + _bounds(kind)
        case inspect.FloatType():
            return "a number" + _bounds(kind)
        case inspect.LiteralType():
            return "one of " + ", ".join(map(str, kind.values))
        case inspect.UnionType():
            return " or ".join(expected(member) for member in kind.types if not isinstance(member, inspect.NoneType))
        case inspect.StrType():
            return "a string"
        case _:
            return "a value"


def _bounds(kind: inspect.IntType | inspect.FloatType) -> str:
    if kind.ge is not None and kind.le is not None:
        return f" from {kind.ge} to {kind.le}"
    words = {"over": kind.gt, "of at least": kind.ge, "below": kind.lt, "of at most": kind.le}
    bounds = [f"{word} {bound}" for word, bound in words.items() if bound is not None]
    return f" {' and '.join(bounds)}" if bounds else ""


def check(value: Any, kind: inspect.Type, path: Path = ()) -> Iterator[Fault]:
    """Every fault of `value`, which should be of `kind` and lies at `path`."""
    match kind:
        case inspect.StructType() if isinstance(value, Mapping):
            yield from _check_struct(value, kind, path)
        case inspect.DictType() if isinstance(value, Mapping):
            for key, item in value.items():
                yield from check(item, kind.value_type, (*path, str(key)))
        case inspect.ListType() if isinstance(value, list | tuple):
            for index, item in enumerate(value):
                yield from check(item, kind.item_type, (*path, index))
        case inspect.UnionType():
            fitting = [member for member in kind.types if _fits(value, member)]
            if fitting:
                yield from check(value, fitting[0], path)
            else:
                yield _wrong(value, kind, path)
        case _:
            if not _fits(value, kind) or not _within(value, kind):
                yield _wrong(value, kind, path)


def _check_struct(value: Mapping[str, Any], kind: inspect.StructType, path: Path) -> Iterator[Fault]:
    fields = {field.name: field for field in kind.fields}
    for key, item in value.items():
        if key in fields:
            yield from check(item, fields[key].type, (*path, key))
        else:
            yield Fault((*path, key), _unknown(key, fields, path))
    for name, field in fields.items():
        if field.required and name not in value:
            hint = "a Hub id, a local folder or hf_<model_type>" if name == "source" else expected(field.type)
            yield Fault((*path, name), f"is missing: give {hint}")


def _unknown(key: str, fields: Iterable[str], path: Path) -> str:
    meant = nearest(key, fields)
    if meant:
        return f"is not a key; did you mean {dotted((*path, meant))}?"
    elsewhere = [dotted(leaf) for leaf in _leaves(schema()) if leaf[-1] == key]
    if elsewhere:
        return f"is not a key; did you mean {elsewhere[0]}?"
    return f"is not a key; keys {'of ' + dotted(path) if path else 'here'} are {', '.join(fields)}"


def _leaves(kind: inspect.Type, path: Path = ()) -> Iterator[Path]:
    if isinstance(kind, inspect.StructType):
        for field in kind.fields:
            yield from _leaves(field.type, (*path, field.name))
    elif isinstance(kind, inspect.DictType) and isinstance(kind.value_type, inspect.StructType):
        yield from _leaves(kind.value_type, (*path, "NAME"))
    else:
        yield path


def _wrong(value: Any, kind: inspect.Type, path: Path) -> Fault:
    message = f"expected {expected(kind)}, got {shown(value)}"
    if isinstance(kind, inspect.LiteralType) and isinstance(value, str):
        meant = nearest(value, map(str, kind.values))
        message += f"; did you mean {meant}?" if meant else ""
    if isinstance(kind, inspect.StructType) and path[:1] == ("models",) and isinstance(value, str):
        message += f"; write {dotted(path)} = {{ source = {shown(value)} }}"
    return Fault(path, message)


def _fits(value: Any, kind: inspect.Type) -> bool:
    match kind:
        case inspect.BoolType():
            return isinstance(value, bool)
        case inspect.IntType():
            return isinstance(value, int) and not isinstance(value, bool)
        case inspect.FloatType():
            return isinstance(value, int | float) and not isinstance(value, bool)
        case inspect.StrType():
            return isinstance(value, str)
        case inspect.NoneType():
            return value is None
        case inspect.LiteralType():
            return value in kind.values
        case inspect.ListType():
            return isinstance(value, list | tuple)
        case inspect.DictType() | inspect.StructType():
            return isinstance(value, Mapping)
        case _:
            return True


def _within(value: Any, kind: inspect.Type) -> bool:
    if not isinstance(kind, inspect.IntType | inspect.FloatType):
        return True
    # Written so that NaN, which compares false with everything, is outside every bound.
    return (
        (kind.gt is None or value > kind.gt)
        and (kind.ge is None or value >= kind.ge)
        and (kind.lt is None or value < kind.lt)
        and (kind.le is None or value <= kind.le)
    )
