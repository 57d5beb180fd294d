"""Settings from environment variables: `MODELPORT_SERVER__PORT=8080`, `MODELPORT_MODELS__CHAT__SOURCE=org/model`."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from msgspec import inspect

from modelport.core.config.schema import Fault, Path, nearest

__all__ = ["CONFIG_VARIABLE", "PREFIX", "read_environment", "variable"]

PREFIX = "MODELPORT_"
CONFIG_VARIABLE = "MODELPORT_CONFIG"
"""Names the configuration file."""

_SHORT: Mapping[str, Path] = {"HOST": ("server", "host"), "PORT": ("server", "port")}
_NOT_SETTINGS = frozenset({CONFIG_VARIABLE, "MODELPORT_API_KEY", "MODELPORT_URL", "MODELPORT_DEMO_DIR"})

# Kubernetes describes a service called `modelport` to every pod beside it in variables of these names.
_KUBERNETES = re.compile(r"MODELPORT_(SERVICE_(HOST|PORT(_.+)?)|PORT_\d+_(TCP|UDP)(_.+)?)")

_WORDS = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}


def variable(path: Path) -> str:
    """The variable that sets the key at `path`."""
    return PREFIX + "__".join(re.sub(r"[^A-Za-z0-9]", "_", str(part)).upper() for part in path)


def read_environment(
    env: Mapping[str, str], kind: inspect.StructType, known: Mapping[str, Any]
) -> Iterator[tuple[str, Path, Any] | Fault]:
    """Each variable of modelport's with the key it sets and its value, or the fault that it is.

    Args:
        env: The environment.
        kind: The type of the whole configuration; it decides how a value is read.
        known: What the file and the flags say: `MODELPORT_MODELS__MY_CHAT__DTYPE` means a model `my-chat` that is named there.
    """
    for name, text in sorted(env.items()):
        if not name.startswith(PREFIX) or name in _NOT_SETTINGS or _KUBERNETES.fullmatch(name):
            continue
        if name == "MODELPORT_PORT" and "://" in text:
            continue
        parts = name.removeprefix(PREFIX).split("__")
        short = _SHORT.get(parts[0]) if len(parts) == 1 else None
        found = _follow([str(part) for part in short] if short else parts, kind, known)
        if found is None:
            meant = nearest(name, _variables(kind, known))
            hint = f"did you mean {meant}?" if meant else "see modelport config show"
            yield Fault((name,), f"is not a variable of modelport's; {hint}")
        else:
            path, leaf = found
            yield name, path, _read(text, leaf)


def _follow(parts: list[str], kind: inspect.Type, known: Any) -> tuple[Path, inspect.Type] | None:
    if not parts:
        return (), kind
    if not parts[0]:
        return None
    here = known if isinstance(known, Mapping) else {}
    match kind:
        case inspect.StructType():
            key = parts[0].lower()
            below = next((field.type for field in kind.fields if field.name == key), None)
        case inspect.DictType():
            key, below = _key(parts[0], here), kind.value_type
        case inspect.UnionType():
            tables = [member for member in kind.types if isinstance(member, inspect.DictType)]
            return _follow(parts, tables[0], known) if tables else None
        case inspect.AnyType():
            key, below = _key(parts[0], here), kind
        case _:
            return None
    rest = _follow(parts[1:], below, here.get(key)) if below is not None else None
    return ((key, *rest[0]), rest[1]) if rest else None


def _key(part: str, known: Iterable[str]) -> str:
    """A free key: the known one that is written so, else lower case unless the variable has lower-case letters itself."""
    for key in known:
        if re.sub(r"[^A-Za-z0-9]", "_", key).upper() == part.upper():
            return key
    return part.lower() if part.upper() == part else part


def _variables(kind: inspect.Type, known: Any, path: Path = ()) -> Iterator[str]:
    if isinstance(kind, inspect.StructType):
        for field in kind.fields:
            yield from _variables(field.type, known.get(field.name) if isinstance(known, Mapping) else None, (*path, field.name))
    elif isinstance(kind, inspect.DictType) and isinstance(kind.value_type, inspect.StructType):
        for name in known if isinstance(known, Mapping) else ("NAME",):
            yield from _variables(kind.value_type, None, (*path, name))
    else:
        yield variable(path)


def _read(text: str, kind: inspect.Type) -> Any:
    """`text` as a value of `kind`. What cannot be read stays text, for the check to refuse with the type it wanted."""
    match kind:
        case inspect.UnionType():
            members = [member for member in kind.types if not isinstance(member, inspect.NoneType)]
            if not text and len(members) < len(kind.types):
                return None
            tables = [member for member in members if isinstance(member, inspect.DictType)]
            return _read(text, tables[0] if tables and text.lstrip().startswith("{") else members[0])
        case inspect.BoolType():
            return _WORDS.get(text.strip().lower(), text)
        case inspect.IntType():
            return _number(text, int)
        case inspect.FloatType():
            return _number(text, float)
        case inspect.ListType():
            if text.lstrip().startswith("["):
                return _literal(text)
            return [_read(part.strip(), kind.item_type) for part in text.split(",") if part.strip()]
        case inspect.DictType() | inspect.StructType() | inspect.AnyType():
            return _literal(text)
        case _:
            return text


def _number(text: str, kind: type[int] | type[float]) -> Any:
    try:
        return kind(text)
    except ValueError:
        return text


def _literal(text: str) -> Any:
    """A TOML or JSON value, else the text itself."""
    if "\n" not in text:
        try:
            return tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            pass
    try:
        return json.loads(text)
    except ValueError:
        return text
