"""Everything that the enabled plugins brought, by name."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pluggy

from modelport import hookspecs
from modelport.contract.api import Api
from modelport.contract.backend import Backend
from modelport.contract.executor import Executor
from modelport.contract.extension import Authorizer, Observer, Resolver
from modelport.contract.skill import Skill
from modelport.contract.task import Task
from modelport.core.plugins.record import PluginRecord

if TYPE_CHECKING:
    import click

__all__ = ["Registry", "new_manager"]


def new_manager() -> pluggy.PluginManager:
    """A plugin manager that knows modelport's hooks and no plugin yet."""
    manager = pluggy.PluginManager("modelport")
    manager.add_hookspecs(hookspecs)
    return manager


@dataclass
class Registry:
    """What discovery found. It is filled once, at start, and only read afterwards.

    Args:
        manager: Holds the modules of enabled plugins; `manager.hook` calls the deciding and observing hooks, in the
            configuration's order, then by name.
        modules: (kind, name) → module, which a worker imports.
        records: Every installed plugin, by kind and name, used or not.
        tasks: Every task that an enabled skill serves.
        authorizers: In the order in which they are asked; resolvers and observers likewise.
        commands: With the name of the plugin that brings each.
    """

    manager: pluggy.PluginManager = field(default_factory=new_manager)
    backends: dict[str, Backend] = field(default_factory=dict)
    skills: dict[str, Skill] = field(default_factory=dict)
    apis: dict[str, Api] = field(default_factory=dict)
    executors: dict[str, Executor] = field(default_factory=dict)
    tasks: dict[str, Task[Any, Any, Any]] = field(default_factory=dict)
    modules: dict[tuple[str, str], str] = field(default_factory=dict)
    records: list[PluginRecord] = field(default_factory=list)
    authorizers: list[Authorizer] = field(default_factory=list)
    resolvers: list[Resolver] = field(default_factory=list)
    observers: list[Observer] = field(default_factory=list)
    commands: list[click.Command] = field(default_factory=list)

    def objects(self, kind: str) -> dict[str, Any]:
        """The enabled plugins of a kind, by name."""
        found: dict[str, Any] = getattr(self, kind)
        return found

    def record(self, kind: str, name: str) -> PluginRecord | None:
        """The record of a plugin, if it is installed."""
        return next((record for record in self.records if (record.kind, record.name) == (kind, name)), None)

    @property
    def failed(self) -> list[PluginRecord]:
        """The plugins that could not be used."""
        return [record for record in self.records if record.state == "failed"]
