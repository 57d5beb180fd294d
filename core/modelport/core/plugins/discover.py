"""Finds what is installed, imports what is enabled, and says of each plugin why it is in use or not."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType
from typing import Any

import msgspec

from modelport.contract.errors import ConfigurationError
from modelport.core.config.schema import nearest
from modelport.core.config.settings import Settings
from modelport.core.plugins.loading import PluginFault, call_hook, hooks_of, import_plugin, load_one, locate, objects_of, pick
from modelport.core.plugins.record import KINDS, Kind, PluginRecord, group
from modelport.core.plugins.registry import Registry

__all__ = ["discover", "load_one"]


def discover(settings: Settings, kinds: Iterable[str] = KINDS, installed: Iterable[EntryPoint] | None = None) -> Registry:
    """Every plugin that is installed, with the enabled ones loaded.

    A plugin that cannot be used becomes a record that says why, and stops no other; under `strict` it stops the start. What is
    disabled is never imported.

    Args:
        settings: Says what is enabled, with which options, in which order.
        kinds: The kinds to look at.
        installed: The entry points; by default those of this interpreter.

    Raises:
        ConfigurationError: two plugins have one name, two skills define one task differently, an authorizer cannot be had, the
            configuration names a plugin that is not installed, or, under `strict`, any plugin failed. All at once.
    """
    return _Discovery(settings, tuple(kind for kind in KINDS if kind in set(kinds)), installed).run()


class _Discovery:
    def __init__(self, settings: Settings, kinds: Collection[Kind], installed: Iterable[EntryPoint] | None) -> None:
        self.settings = settings
        self.kinds = kinds
        groups: dict[str, Kind] = {group(kind): kind for kind in kinds}
        found = _installed(groups) if installed is None else installed
        self.points: list[tuple[Kind, EntryPoint]] = [(groups[point.group], point) for point in found if point.group in groups]
        place = {name: index for index, name in enumerate(settings.order)}
        self.points.sort(
            key=lambda each: (place.get(each[1].name, len(place)), each[1].name, KINDS.index(each[0]), each[1].value)
        )
        self.registry = Registry()
        self.faults: list[str] = []
        self.plugins: dict[str, ModuleType | PluginFault] = {}
        self.definers: dict[str, PluginRecord] = {}

    def run(self) -> Registry:
        duplicates = self._duplicates()
        self._missing()
        records = [(kind, point, self._record(kind, point)) for kind, point in self.points]
        enabled = [each for each in records if each[2].state == "enabled" and (each[0], each[1].name) not in duplicates]
        # pluggy asks the last registered first, so what is asked first is registered last.
        for _, point, _ in reversed(enabled):
            self._import(point.value)
        loaded = {id(point): self._load(kind, point, record) for kind, point, record in enabled}
        self.registry.records += [loaded.get(id(point), record) for _, point, record in records]
        self.registry.records.sort(key=lambda record: (KINDS.index(record.kind), record.name, record.distribution))
        if self.settings.strict:
            self.faults += [f"{record.kind}.{record.name} ({record.owner}): {record.reason}" for record in self.registry.failed]
        if self.faults:
            raise ConfigurationError("\n  ".join(["Plugins cannot be used as they are:", *dict.fromkeys(self.faults)]))
        return self.registry

    def _duplicates(self) -> set[tuple[str, str]]:
        """Names that two enabled plugins have."""
        owners: dict[tuple[Kind, str], list[EntryPoint]] = defaultdict(list)
        for kind, point in self.points:
            owners[kind, point.name].append(point)
        twice = {key: points for key, points in owners.items() if len(points) > 1 and self.settings.enabled(*key)}
        for (kind, name), points in twice.items():
            names = " and ".join(f"{_owner(point)} (module {point.value})" for point in points)
            self.faults.append(f"{kind}.{name} is brought by {names}; uninstall one, or set {kind}.{name}.enabled = false")
        return set(twice)

    def _missing(self) -> None:
        """Refuses configuration of what is not installed: a list or an order by error, options by a failed record."""
        names = {kind: {point.name for other, point in self.points if other == kind} for kind in self.kinds}
        for kind in self.kinds:
            chosen = getattr(self.settings, kind)
            for name in chosen:
                if name == "*" or name in names[kind]:
                    continue
                if isinstance(chosen, list) or chosen[name].get("enabled") is True:
                    self.faults.append(f"{kind}.{name} is enabled, but not installed; {_instead_of(name, kind, names[kind])}")
                elif chosen[name].get("enabled", True):
                    reason = f"it is configured, but not installed; {_instead_of(name, kind, names[kind])}"
                    self.registry.records.append(PluginRecord(kind=kind, name=name, state="failed", reason=reason))
        for model, settings in self.settings.models.items() if "backends" in names else ():
            backend = (settings.backend or "").partition(":")[0]
            if backend and backend not in names["backends"]:
                hint = _instead_of(backend, "backends", names["backends"])
                self.faults.append(f"models.{model}.backend is {settings.backend!r}, and there is no such backend; {hint}")
        if set(self.kinds) == set(KINDS):
            everything = set().union(*names.values())
            for name in self.settings.order:
                if name not in everything:
                    meant = nearest(name, everything)
                    self.faults.append(
                        f"order names {name!r}, which is not installed{f'; did you mean {meant}?' if meant else ''}"
                    )

    def _record(self, kind: Kind, point: EntryPoint) -> PluginRecord:
        enabled = self.settings.enabled(kind, point.name)
        listed = isinstance(getattr(self.settings, kind), list)
        why = f"it is not in the list {kind}" if listed else f"{kind}.{point.name}.enabled is false"
        return PluginRecord(
            kind=kind,
            name=point.name,
            distribution=point.dist.name if point.dist else "",
            version=point.dist.version if point.dist else "",
            file=locate(point.module),
            module=point.value,
            state="enabled" if enabled else "disabled",
            reason="" if enabled else why,
        )

    def _import(self, module: str) -> None:
        if module in self.plugins:
            return
        try:
            plugin = import_plugin(module)
            self.registry.manager.register(plugin, module)
            self.plugins[module] = plugin
        except PluginFault as fault:
            self.plugins[module] = fault

    def _load(self, kind: Kind, point: EntryPoint, record: PluginRecord) -> PluginRecord:
        plugin = self.plugins[point.value]
        if isinstance(plugin, PluginFault):
            return msgspec.structs.replace(record, state="failed", reason=str(plugin))
        record = msgspec.structs.replace(record, contract=plugin.MODELPORT_CONTRACT)
        others = [other.name for also, other in self.points if also == kind and other.value == point.value]
        try:
            found = objects_of(self.registry.manager, plugin, kind, self.settings.options(kind, point.name))
            item = pick(kind, point.name, found, hooks_of(plugin), others)
            self._services(plugin, record)
        except PluginFault as fault:
            if self.registry.manager.is_registered(plugin) and plugin.__name__ not in self.registry.modules.values():
                self.registry.manager.unregister(plugin)
            return msgspec.structs.replace(record, state="failed", reason=str(fault))
        if item is not None:
            self.registry.objects(kind)[point.name] = item
            if kind == "skills":
                self._tasks(item, record)
        self.registry.modules[kind, point.name] = point.value
        return record

    def _services(self, plugin: ModuleType, record: PluginRecord) -> None:
        """Authorizers, resolvers, observers and commands of a module: once, whatever the number of its entry points."""
        if plugin.__name__ in self.registry.modules.values():
            return
        manager, registry = self.registry.manager, self.registry
        try:
            authorizers = call_hook(manager, plugin, "register_authorizers")
        except PluginFault as fault:
            # Fail closed: a server without its authorizer would allow what it should deny.
            self.faults.append(f"{record.kind}.{record.name} ({record.owner}) has authorizers that cannot be had: {fault}")
            raise
        resolvers = call_hook(manager, plugin, "register_resolvers")
        observers = call_hook(manager, plugin, "register_observers")
        commands = call_hook(manager, plugin, "register_commands")
        registry.authorizers += authorizers
        registry.resolvers += resolvers
        registry.observers += observers
        registry.commands += commands

    def _tasks(self, skill: Any, record: PluginRecord) -> None:
        for task in skill.tasks:
            known = self.registry.tasks.setdefault(task.name, task)
            first = self.definers.setdefault(task.name, record)
            if not known.same_definition(task):
                self.faults.append(
                    f"the task {task.name!r} is defined differently by skills.{first.name} ({first.owner}) and by "
                    f"skills.{record.name} ({record.owner}); disable one: skills.{record.name}.enabled = false"
                )


def _instead_of(name: str, kind: Kind, names: Collection[str]) -> str:
    meant = nearest(name, names)
    hint = f"did you mean {meant}?" if meant else f"try pip install modelport-{kind[:-1]}-{name.replace('_', '-')}."
    return f"{hint} Installed {kind}: {', '.join(sorted(names)) or 'none'}"


def _installed(groups: Iterable[str]) -> list[EntryPoint]:
    everything = entry_points()
    return [point for name in groups for point in everything.select(group=name)]


def _owner(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else point.value
