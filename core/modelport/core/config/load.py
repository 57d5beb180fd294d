"""Puts the configuration together: flag over environment over file over default, every fault at once."""

from __future__ import annotations

import copy
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import msgspec

from modelport.contract.errors import ConfigurationError
from modelport.core.config import schema as types
from modelport.core.config.environment import CONFIG_VARIABLE, read_environment
from modelport.core.config.rules import check_rules
from modelport.core.config.schema import Fault, check, dotted
from modelport.core.config.settings import Settings

__all__ = ["DEFAULT_FILE", "Loaded", "Origin", "load"]

DEFAULT_FILE = Path("modelport.toml")
"""Read if it lies where the command runs and no other is named."""

Origin = Literal["file", "env", "flag"]

_PLUGINS = ("apis", "backends", "skills", "executors")


@dataclass(frozen=True)
class Loaded:
    """The configuration in force, and where each key of it was set.

    Args:
        settings: The configuration.
        origins: Dotted key → `file`, `env` or `flag`; keys that are not in it have their default.
        places: Dotted key → the file, the variable or the flag.
        file: The file that was read, if any.
    """

    settings: Settings
    origins: dict[str, Origin]
    places: dict[str, str]
    file: Path | None


def load(path: Path | None, env: Mapping[str, str], flags: Mapping[str, Any]) -> Loaded:
    """The configuration of a file, an environment and flags.

    Args:
        path: The TOML file; by default `$MODELPORT_CONFIG`, else `modelport.toml` if there is one.
        env: The environment.
        flags: Values by key, in the file's shape (`{"server": {"port": 1}}`) or by dotted key (`{"server.port": 1}`).
            None is a flag that was not given.

    Raises:
        ConfigurationError: with one line for every fault.
    """
    kind = types.schema()
    faults: list[Fault] = []
    file = path or (Path(env[CONFIG_VARIABLE]) if env.get(CONFIG_VARIABLE) else DEFAULT_FILE if DEFAULT_FILE.is_file() else None)
    layers = _Layers()
    if file is not None:
        try:
            layers.put_all(_read_file(file), "file", str(file))
        except ConfigurationError as error:
            faults.append(Fault((), error.message))
    given = _nested(flags)
    known = copy.deepcopy(layers.tree)
    _merge_names(known, given)
    for found in read_environment(env, kind, known):
        if isinstance(found, Fault):
            faults.append(found)
        else:
            name, key, value = found
            layers.put(key, value, "env", name)
    layers.put_all(given, "flag", "")
    faults += check(layers.tree, kind)
    faults += check_rules(layers.tree)
    if faults:
        raise ConfigurationError(_message(faults, layers.places))
    settings = msgspec.convert(layers.tree, Settings)
    return Loaded(
        settings=settings,
        origins={dotted(key): origin for key, origin in layers.origins.items()},
        places={dotted(key): place for key, place in layers.places.items()},
        file=file,
    )


@dataclass
class _Layers:
    """A tree that later layers write over, and who wrote each leaf."""

    tree: dict[str, Any] = field(default_factory=dict)
    origins: dict[types.Path, Origin] = field(default_factory=dict)
    places: dict[types.Path, str] = field(default_factory=dict)

    def put_all(self, table: Mapping[str, Any], origin: Origin, place: str, path: types.Path = ()) -> None:
        for key, value in table.items():
            if isinstance(value, Mapping) and (value or isinstance(self._at((*path, key)), dict)):
                self.put_all(value, origin, place, (*path, key))
            else:
                self.put((*path, key), value, origin, place)

    def put(self, path: types.Path, value: Any, origin: Origin, place: str) -> None:
        if len(path) == 1 and path[0] in _PLUGINS and isinstance(value, list):
            self._only(str(path[0]), value, origin, place)
            return
        table = self.tree
        for key in path[:-1]:
            below = table.get(str(key))
            if isinstance(below, list) and table is self.tree and key in _PLUGINS:
                below = _as_tables(below, {})
            if not isinstance(below, dict):
                below = {}
            table[str(key)] = below
            table = below
        self._forget(path)
        table[str(path[-1])] = value
        self.origins[path], self.places[path] = origin, place

    def _at(self, path: types.Path) -> Any:
        value: Any = self.tree
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        return value

    def _only(self, kind: str, names: list[Any], origin: Origin, place: str) -> None:
        """A list of the only plugins to enable, which keeps the options that a lower layer gave them."""
        options = self.tree.get(kind)
        if isinstance(options, dict) and options and all(isinstance(name, str) for name in names):
            self.tree[kind] = _as_tables(names, options)
        else:
            self._forget((kind,))
            self.tree[kind] = names
        self.origins[(kind,)], self.places[(kind,)] = origin, place

    def _forget(self, path: types.Path) -> None:
        for known in [known for known in self.origins if known[: len(path)] == path]:
            del self.origins[known], self.places[known]


def _as_tables(names: list[Any], options: Mapping[str, Any]) -> dict[str, Any]:
    disabled = {name: {**table, "enabled": False} if isinstance(table, dict) else table for name, table in options.items()}
    enabled = {name: {**options.get(name, {}), "enabled": True} for name in names}
    return {**disabled, "*": {"enabled": False}, **enabled}


def _read_file(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.expanduser().read_text("utf-8-sig"))
    except FileNotFoundError:
        raise ConfigurationError(f"{file} does not exist; name a configuration file that does, or none") from None
    except OSError as error:
        raise ConfigurationError(f"{file} cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"{file} is not UTF-8 text; save it as UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{file} is not TOML: {error}") from None


def _nested(flags: Mapping[str, Any]) -> dict[str, Any]:
    """Flags as a tree, without those that were not given."""
    tree: dict[str, Any] = {}
    for key, value in flags.items():
        if value is None:
            continue
        *tables, last = _split(key)
        table = tree
        for part in tables:
            table = table.setdefault(part, {})
        if isinstance(value, Mapping):
            _merge(table.setdefault(last, {}), _nested_values(value))
        else:
            table[last] = list(value) if isinstance(value, tuple) else value
    return tree


def _nested_values(value: Mapping[str, Any]) -> dict[str, Any]:
    """The same below the first level, where keys are taken as they are: a model's name may hold dots."""
    return {
        key: _nested_values(item) if isinstance(item, Mapping) else list(item) if isinstance(item, tuple) else item
        for key, item in value.items()
        if item is not None
    }


def _split(key: str) -> list[str]:
    return [quoted or bare for quoted, bare in re.findall(r'"([^"]*)"|([^."]+)', key)] or [key]


def _merge(into: dict[str, Any], table: Mapping[str, Any]) -> None:
    for key, value in table.items():
        if isinstance(value, Mapping) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value


def _merge_names(known: dict[str, Any], given: Mapping[str, Any]) -> None:
    """Adds the models that only flags name, so that variables can mean them."""
    models, more = known.setdefault("models", {}), given.get("models")
    if isinstance(models, dict) and isinstance(more, Mapping):
        for name in more:
            models.setdefault(name, {})


def _message(faults: list[Fault], places: Mapping[types.Path, str]) -> str:
    lines = list(dict.fromkeys(_lines(faults, places)))
    head = "The configuration has a fault:" if len(lines) == 1 else f"The configuration has {len(lines)} faults:"
    return "\n  ".join([head, *lines])


def _lines(faults: list[Fault], places: Mapping[types.Path, str]) -> Iterator[str]:
    for fault in faults:
        place = next((places[fault.path[:n]] for n in range(len(fault.path), 0, -1) if places.get(fault.path[:n])), "")
        where = f" (in {place})" if place else ""
        if not fault.path:
            yield fault.message
        else:
            yield f"{dotted(fault.path)}{' ' if fault.message.startswith(('is ', 'needs ')) else ': '}{fault.message}{where}"
