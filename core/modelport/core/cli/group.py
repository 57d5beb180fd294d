"""The command group: each command's module is imported when the command is asked for, and plugins add theirs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib import import_module

import rich_click as click

from modelport.contract.errors import ConfigurationError, ModelportError
from modelport.core.config.schema import nearest

__all__ = ["COMMANDS", "LazyGroup"]

COMMANDS: Mapping[str, str] = {
    name: f"modelport.core.cli.{name}"
    for name in "serve run demo models explain hardware plugins keys config doctor bench recommend".split()
}
"""Command → the module that holds it under the name `command`, in the order in which help lists them."""


class LazyGroup(click.RichGroup):
    """Commands of the core by name; plugins are discovered only for the list, and for a name that the core does not have."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*COMMANDS, *sorted(self._of_plugins())]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in COMMANDS:
            command: click.Command = import_module(COMMANDS[cmd_name]).command
            return command
        return self._of_plugins().get(cmd_name)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError:
            meant = nearest(args[0], self.list_commands(ctx))
            if meant is None:
                raise
            raise click.UsageError(f"No such command {args[0]!r}. Did you mean {meant!r}?", ctx) from None

    def _of_plugins(self) -> dict[str, click.Command]:
        """Commands that plugins register. A configuration that does not load costs them, and says so when a command reads it."""
        from modelport.core.config.load import load
        from modelport.core.plugins.discover import discover

        try:
            registry = discover(load(None, os.environ, {}).settings)
        except ModelportError as error:
            click.echo(f"modelport: commands of plugins are left out: {error.message}", err=True)
            return {}
        found: dict[str, click.Command] = {}
        owners: dict[str, str] = {}
        for command in registry.commands:
            name, owner = command.name or "", command.callback.__module__ if command.callback else type(command).__module__
            other = "modelport itself" if name in COMMANDS else owners.get(name)
            if other is not None:
                raise ConfigurationError(
                    f"The command {name!r} is registered by {owner} and already belongs to {other}. "
                    "Disable one of the two plugins, or rename its command."
                )
            found[name], owners[name] = command, owner
        return found
