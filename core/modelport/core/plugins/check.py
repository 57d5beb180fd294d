"""Checks one plugin as its author wants it checked: everything that is wrong with it, and what its import costs.

The plugin is loaded in a child process, so that what it imports can be told from what was there before:
`python -m modelport.core.plugins.check POINT` prints the findings, both as JSON.
"""

from __future__ import annotations

import subprocess
import sys
import time
import tomllib
from importlib.metadata import entry_points
from pathlib import Path
from typing import Literal

import msgspec

from modelport.contract.errors import ConfigurationError
from modelport.core.config.schema import nearest
from modelport.core.plugins.loading import PluginFault, contract_of, hooks_of, import_plugin, objects_of, pick
from modelport.core.plugins.record import KINDS, Kind, group
from modelport.core.plugins.registry import new_manager

__all__ = ["Finding", "check_plugin", "installed_names"]

_HEAVY = ("torch", "transformers", "tensorflow", "jax", "openvino", "onnxruntime", "litestar")
_SLOW_S = 0.5
_CHILD_S = 120.0


class Finding(msgspec.Struct, frozen=True):
    """One thing about a plugin. `error` keeps it from being used, `warning` does not."""

    level: Literal["ok", "warning", "error"]
    plugin: str
    message: str


class _Point(msgspec.Struct, frozen=True):
    kind: Kind
    name: str
    module: str
    folder: str = ""
    others: tuple[str, ...] = ()
    """Further entry points of the same kind and module."""


def check_plugin(target: str) -> list[Finding]:
    """What is to be said of an installed plugin (by name), or of the one in a folder, which need not be installed.

    Raises:
        ConfigurationError: there is no such plugin.
    """
    points = _in_folder(Path(target)) if Path(target).is_dir() else _installed(target)
    return [finding for point in points for finding in _in_child(point)]


def _with_others(points: list[_Point]) -> list[_Point]:
    def others(point: _Point) -> tuple[str, ...]:
        beside = (each for each in points if (each.kind, each.module) == (point.kind, point.module))
        return tuple(each.name for each in beside if each.name != point.name)

    return [msgspec.structs.replace(point, others=others(point)) for point in points]


def installed_names() -> list[str]:
    """The name of every plugin that is installed. Imports none of them."""
    return list(dict.fromkeys(point.name for point in _points()))


def _points() -> list[_Point]:
    everything = entry_points()
    return [_Point(kind, each.name, each.value) for kind in KINDS for each in everything.select(group=group(kind))]


def _installed(name: str) -> list[_Point]:
    points = _points()
    found = [point for point in _with_others(points) if point.name == name]
    if not found:
        names = sorted({point.name for point in points})
        meant = nearest(name, names)
        hint = f"Did you mean {meant}?" if meant else f"Installed: {', '.join(names) or 'none'}."
        raise ConfigurationError(f"There is no plugin {name!r}, and no folder of that name. {hint}")
    return found


def _in_folder(folder: Path) -> list[_Point]:
    file = folder / "pyproject.toml"
    try:
        project = tomllib.loads(file.read_text("utf-8")).get("project", {})
    except OSError as error:
        raise ConfigurationError(f"{file} cannot be read: {error.strerror or error}. A plugin has one.") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{file} is not TOML: {error}") from error
    source = folder / "src" if (folder / "src").is_dir() else folder
    points = [
        _Point(kind, name, module, str(source.absolute()))
        for kind in KINDS
        for name, module in project.get("entry-points", {}).get(group(kind), {}).items()
    ]
    if not points:
        groups = ", ".join(map(group, KINDS))
        raise ConfigurationError(f"{file} has no entry point in {groups}, so modelport would not find the plugin. Add one.")
    return _with_others(points)


def _in_child(point: _Point) -> list[Finding]:
    command = [sys.executable, "-m", "modelport.core.plugins.check", msgspec.json.encode(point).decode()]
    try:
        child = subprocess.run(command, capture_output=True, timeout=_CHILD_S, check=False)
    except subprocess.TimeoutExpired:
        return [Finding("error", point.name, f"loading it takes over {_CHILD_S:g} s")]
    try:
        return msgspec.json.decode(child.stdout.rpartition(b"\0")[2], type=list[Finding])
    except msgspec.DecodeError:
        last = child.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2]
        return [
            Finding("error", point.name, f"loading it ended the process with status {child.returncode}: {last or 'no message'}")
        ]


def _findings(point: _Point) -> list[Finding]:
    before = set(sys.modules)
    started = time.perf_counter()
    try:
        plugin = import_plugin(point.module)
        took_s = time.perf_counter() - started
        heavy = [name for name in _HEAVY if name in sys.modules and name not in before]
        manager = new_manager()
        manager.register(plugin, point.module)
        found = objects_of(manager, plugin, point.kind)
        pick(point.kind, point.name, found, hooks_of(plugin), point.others)
    except PluginFault as fault:
        return [Finding("error", point.name, str(fault))]
    findings = [Finding("ok", point.name, f"{point.kind}.{point.name} loads, for contract {contract_of(plugin)}")]
    if heavy:
        what = ", ".join(heavy)
        message = f"its module imports {what}, which the server would import with it; import that inside the methods that need it"
        findings.append(Finding("warning", point.name, message))
    if took_s > _SLOW_S:
        findings.append(
            Finding("warning", point.name, f"importing it took {took_s:.1f} s, which every start and every command waits for")
        )
    return findings


def main() -> None:
    """Prints the findings on the plugin that the arguments name."""
    point = msgspec.json.decode(sys.argv[1], type=_Point)
    if point.folder:
        sys.path.insert(0, point.folder)
    # The plugin may print while it is imported: the findings are what follows the last zero byte.
    sys.stdout.buffer.write(b"\0" + msgspec.json.encode(_findings(point)))


if __name__ == "__main__":
    main()
