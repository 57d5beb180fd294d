"""Imports one plugin and holds it to the contract. Every refusal is a `PluginFault` whose text is the reason to show."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Collection, Iterable, Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import pluggy

from modelport.contract import CONTRACT_VERSION
from modelport.contract.api import Api
from modelport.contract.errors import ConfigurationError
from modelport.contract.skill import Skill
from modelport.contract.task import Task
from modelport.core.config.schema import nearest
from modelport.core.plugins.record import Kind
from modelport.core.plugins.registry import new_manager

__all__ = ["PluginFault", "call_hook", "contract_of", "hooks_of", "import_plugin", "load_one", "locate", "objects_of", "pick"]

_MEMBERS: Mapping[str, Mapping[str, str]] = {
    "backends": {
        "rank": "",
        "imports_torch": "",
        "preload": "",
        "probe": "()",
        "verdict": "()",
        "environment": "()",
        "load": "()",
    },
    "executors": {"replica": "()", "close": "()"},
}
"""What a protocol asks for; skills and apis have a base class instead."""


class PluginFault(Exception):
    """A plugin cannot be used; the text says why and what to do."""


def locate(module: str) -> str:
    """The file of `module`, found without importing it; empty if there is none."""
    top, *rest = module.split(".")
    loaded = sys.modules.get(top)
    try:
        spec = getattr(loaded, "__spec__", None) or find_spec(top)
    except (ImportError, ValueError):
        return ""
    if spec is None:
        return ""
    if not rest:
        return spec.origin or ""
    # find_spec of a dotted name would import its parents.
    for folder in spec.submodule_search_locations or ():
        path = Path(folder, *rest)
        for candidate in (path.with_suffix(".py"), path / "__init__.py"):
            if candidate.is_file():
                return str(candidate)
    return ""


def import_plugin(module: str) -> ModuleType:
    """The module of a plugin, imported and checked: its contract, and that it implements hooks as they are.

    Raises:
        PluginFault: the reason why it cannot be used.
    """
    name, _, attribute = module.partition(":")
    if attribute:
        raise PluginFault(f"its entry point names {module!r}; an entry point names a module, so write {name!r}")
    try:
        plugin = import_module(name)
    except (Exception, SystemExit) as error:
        raise PluginFault(f"importing {name} failed with {_error(error)}") from error
    contract_of(plugin)
    _check_hooks(plugin)
    return plugin


def contract_of(plugin: ModuleType) -> str:
    """The contract that a plugin states.

    Raises:
        PluginFault: it states none, or one that this server cannot keep.
    """
    stated = getattr(plugin, "MODELPORT_CONTRACT", None)
    if stated is None:
        raise PluginFault(f'it states no contract; write MODELPORT_CONTRACT = "{CONTRACT_VERSION}" in {plugin.__name__}')
    match = re.fullmatch(r"(\d+)\.(\d+)", stated) if isinstance(stated, str) else None
    if match is None:
        raise PluginFault(f'MODELPORT_CONTRACT is {stated!r}; it must be text like "{CONTRACT_VERSION}"')
    ours, theirs = tuple(map(int, CONTRACT_VERSION.split("."))), (int(match[1]), int(match[2]))
    if theirs[0] != ours[0]:
        raise PluginFault(
            f"it was written for contract {stated} and this server has {CONTRACT_VERSION}; install its version for {ours[0]}.x"
        )
    if theirs[1] > ours[1]:
        raise PluginFault(f"it was written for contract {stated} and this server has {CONTRACT_VERSION}; upgrade modelport")
    return str(stated)


def hooks_of(plugin: ModuleType) -> set[str]:
    """The names of the hooks that a module implements, right or wrong."""
    return {value.modelport_impl.get("specname") or name for name, value in _marked(plugin)}


def _marked(plugin: ModuleType) -> list[tuple[str, Any]]:
    return [
        (name, value)
        for name, value in vars(plugin).items()
        if callable(value) and isinstance(getattr(value, "modelport_impl", None), dict)
    ]


def _check_hooks(plugin: ModuleType) -> None:
    scratch = new_manager()
    known = {name for name in vars(scratch.hook) if not name.startswith("_")}
    marked = _marked(plugin)
    if not marked:
        unmarked = sorted(name for name in known if inspect.isfunction(vars(plugin).get(name)))
        what = f"{unmarked[0]} is not marked" if unmarked else "it implements no hook"
        raise PluginFault(f"{what}; did you forget @hookimpl?")
    for name, function in marked:
        if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
            raise PluginFault(f"{name} is asynchronous; hooks are plain functions")
        hook = function.modelport_impl.get("specname") or name
        if hook not in known and not function.modelport_impl.get("optionalhook"):
            meant = nearest(hook, known)
            raise PluginFault(
                f"{hook} is not a hook; {f'did you mean {meant}?' if meant else 'hooks are ' + ', '.join(sorted(known))}"
            )
    try:
        scratch.register(plugin, plugin.__name__)
        scratch.check_pending()
    except pluggy.PluginValidationError as error:
        raise PluginFault(_signature(scratch, marked) or re.sub(r"\s+", " ", str(error))) from error


def _signature(manager: pluggy.PluginManager, marked: list[tuple[str, Any]]) -> str:
    """Which hook takes an argument that it does not get."""
    for name, function in marked:
        hook = function.modelport_impl.get("specname") or name
        spec = getattr(getattr(manager.hook, hook, None), "spec", None)
        if spec is None:
            continue
        wrong = [argument for argument in inspect.signature(function).parameters if argument not in spec.argnames]
        if wrong:
            takes = f"arguments of {', '.join(spec.argnames)}" if spec.argnames else "no arguments"
            return f"{hook} takes {', '.join(wrong)}, which it does not get; it may take {takes}"
    return ""


def call_hook(manager: pluggy.PluginManager, plugin: ModuleType, hook: str, **arguments: Any) -> list[Any]:
    """What one registered plugin's implementations of `hook` return, as one list; nothing if it implements none.

    One plugin at a time: in a pluggy call over all, one that raises would take the others' answers with it.

    Raises:
        PluginFault: it raised, or returned something that is no sequence.
    """
    found: list[Any] = []
    caller = getattr(manager.hook, hook)
    for implementation in caller.get_hookimpls():
        if implementation.plugin is not plugin or implementation.hookwrapper or implementation.wrapper:
            continue
        try:
            value = implementation.function(*(arguments[name] for name in implementation.argnames))
        except (Exception, SystemExit) as error:
            raise PluginFault(f"{hook} failed with {_error(error)}") from error
        if value is None:
            continue
        if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
            raise PluginFault(
                f"{hook} returned a {type(value).__name__}; it returns a list, as in return [{type(value).__name__}()]"
            )
        found.extend(value)
    return found


def objects_of(
    manager: pluggy.PluginManager, plugin: ModuleType, kind: Kind, options: Mapping[str, Any] | None = None
) -> list[Any]:
    """The checked objects of a kind that a registered plugin brings.

    Raises:
        PluginFault: its hook fails, or what it returns is not of the kind.
    """
    arguments = {"options": dict(options or {})} if kind == "apis" else {}
    found = call_hook(manager, plugin, f"register_{kind}", **arguments)
    for item in found:
        _check_object(kind, item)
    return found


def _check_object(kind: Kind, item: Any) -> None:
    what = f"register_{kind} returned {f'the class {item.__name__}' if inspect.isclass(item) else f'a {type(item).__name__}'}"
    if inspect.isclass(item):
        raise PluginFault(f"{what}; return an object of it: {item.__name__}()")
    base = {"skills": Skill, "apis": Api}.get(kind)
    if base is not None and not isinstance(item, base):
        raise PluginFault(f"{what}, which is not a modelport.contract.{base.__name__}")
    if not isinstance(getattr(item, "name", None), str):
        raise PluginFault(f'{what} without a name; set name = "…" to the entry point\'s name')
    for member, call in _MEMBERS.get(kind, {}).items():
        if not hasattr(item, member) or (call and not callable(getattr(item, member))):
            raise PluginFault(f"{what} that lacks {member}{call}; see modelport.contract")
    if isinstance(item, Skill):
        tasks = getattr(item, "tasks", None)
        if not isinstance(tasks, Collection) or not all(isinstance(task, Task) for task in tasks):
            raise PluginFault(f"{what} whose tasks are not a tuple of modelport.contract.Task")


def pick(kind: Kind, name: str, found: list[Any], hooks: Collection[str], others: Collection[str] = ()) -> Any | None:
    """The object that belongs to the entry point `name`; None if the plugin brings only services (commands, observers, …).

    Args:
        kind: The entry point's kind.
        name: The entry point's name.
        found: What the module registered.
        hooks: The hooks that the module implements.
        others: Names of further entry points of the same kind and module.

    Raises:
        PluginFault: there is no such object, two, or one that no entry point names.
    """
    mine = [item for item in found if item.name == name]
    strangers = sorted({item.name for item in found} - {name, *others})
    if strangers:
        raise PluginFault(f"it registers {strangers[0]!r} and its entry point is {name!r}; the two names must be equal")
    if len(mine) > 1:
        raise PluginFault(f"it registers {name!r} twice; return one object of that name")
    if mine:
        return mine[0]
    if f"register_{kind}" in hooks:
        if found:
            raise PluginFault(
                f"it registers {found[0].name!r} and not {name!r}; the entry point's name and the object's must be equal"
            )
        return None
    wrong = sorted(
        hook for hook in hooks if hook in {"register_backends", "register_skills", "register_apis", "register_executors"}
    )
    if wrong:
        right = wrong[0].removeprefix("register_")
        raise PluginFault(
            f"it implements {wrong[0]}, and its entry point is in modelport.{kind}; put that into modelport.{right}"
        )
    return None


def load_one(kind: Kind, name: str, module: str) -> Any:
    """The backend or skill `name` of `module`; nothing else is imported. For workers.

    Raises:
        ConfigurationError: it cannot be used; the message says why.
    """
    try:
        plugin = import_plugin(module)
        manager = new_manager()
        manager.register(plugin, module)
        for item in objects_of(manager, plugin, kind):
            if item.name == name:
                return item
        raise PluginFault(f"it registers no {name!r}")
    except PluginFault as fault:
        raise ConfigurationError(f"The plugin {name!r} ({kind}, module {module}) cannot be used: {fault}.") from fault


def _error(error: BaseException) -> str:
    text = re.sub(r"\s+", " ", str(error)).strip()
    hint = "; install what it needs" if isinstance(error, ModuleNotFoundError) else ""
    return f"{type(error).__name__}{f': {text}' if text else ''}{hint}"
