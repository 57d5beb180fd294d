"""`modelport plugins`: what is installed, whether it works, and how to make one."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec
import rich_click as click

from modelport.core.cli.options import config_option, json_option, loaded
from modelport.core.plugins.record import KINDS, PluginRecord

__all__ = ["command"]


@click.group("plugins")
def command() -> None:
    """List, check and make plugins.

    Plugins are code with the rights of the server: to enable one is to trust it. The list shows where each comes from.

    Examples:

    - `modelport plugins list`
    - `modelport plugins check`
    - `modelport plugins new skill shout`
    """


@command.command("list")
@click.argument("kind", required=False, type=click.Choice(list(KINDS)))
@config_option
@json_option
def list_command(kind: str | None, config: Path | None, as_json: bool) -> None:
    """List the installed plugins.

    Each with its kind, name, distribution, version and file, and the reason why it is not in use if it is not.

    Examples:

    - `modelport plugins list`
    - `modelport plugins list skills --json`
    """
    from modelport.core.cli.output import print_json, print_table

    records = [record for record in _records(config) if kind is None or record.kind == kind]
    if as_json:
        print_json([record.describe() for record in records])
        return
    print_table(
        ("kind", "name", "state", "distribution", "version", "file", "reason"),
        [(r.kind, r.name, r.state, r.distribution, r.version, r.file, r.reason) for r in records],
        "No plugin is installed. Without a backend, a skill and an API there is nothing to serve.",
    )


@command.command("check")
@click.argument("plugins", nargs=-1, metavar="[NAME|FOLDER]…")
@json_option
def check_command(plugins: tuple[str, ...], as_json: bool) -> None:
    """Load plugins and say what is wrong with them, and what their import costs.

    Each is loaded in a process of its own; without a NAME, every installed one, enabled or not. A FOLDER is checked without
    being installed. Status 1 if there is an error. For the behaviour of a plugin there are suites of tests in
    `modelport.testing`.

    Examples:

    - `modelport plugins check`
    - `modelport plugins check shout`
    - `modelport plugins check ./modelport-skill-shout --json`
    """
    from modelport.core.cli.output import print_json
    from modelport.core.plugins.check import check_plugin, installed_names

    targets = plugins or installed_names()
    findings = [finding for target in targets for finding in check_plugin(target)]
    if as_json:
        print_json(findings)
    else:
        for finding in findings:
            click.echo(f"{finding.level}: {finding.plugin}: {finding.message}")
        if not findings:
            click.echo("No plugin is installed.")
    if any(finding.level == "error" for finding in findings):
        sys.exit(1)


@command.command("new")
@click.argument("kind", metavar="skill")
@click.argument("name")
@click.option(
    "--dir", "folder", type=click.Path(path_type=Path, file_okay=False), default=Path(), help="Where to make it; here by default."
)
@json_option
def new_command(kind: str, name: str, folder: Path, as_json: bool) -> None:
    """Make a plugin: a real one, with its test and nothing to delete.

    There is a template for skills; other kinds start from one of modelport's own plugins.

    Examples:

    - `modelport plugins new skill shout` makes ./modelport-skill-shout
    - `modelport plugins new skill shout --dir ./plugins`
    """
    from modelport.core.cli.output import print_json
    from modelport.core.plugins.new import new_plugin

    made = new_plugin(kind, name, folder)
    if as_json:
        print_json({"kind": kind, "name": name, "path": str(made)})
        return
    click.echo(f"{made} is made. Next:")
    click.echo(f"  pip install -e {made}")
    click.echo("  modelport plugins list")
    click.echo("  modelport serve")


def _records(config: Path | None) -> list[PluginRecord]:
    from modelport.core.plugins.discover import discover

    # to look is not to start: a plugin that fails is shown, not refused
    settings = msgspec.structs.replace(loaded(config).settings, strict=False)
    return discover(settings).records
