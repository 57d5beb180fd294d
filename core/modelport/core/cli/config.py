"""`modelport config`: what is in force, and what there is to set."""

from __future__ import annotations

from pathlib import Path

import rich_click as click

from modelport.core.cli.options import config_option, json_option, loaded

__all__ = ["command"]


@click.group("config")
def command() -> None:
    """Show the configuration: a TOML file, environment variables, flags.

    A flag wins over a variable, a variable over the file, the file over the default.

    Examples:

    - `modelport config show`
    - `modelport config show --keys`
    """


@command.command("show")
@config_option
@click.option("--all", "everything", is_flag=True, help="Also the keys that have their default.")
@click.option("--keys", "reference", is_flag=True, help="Instead list every key there is, with its meaning and its variable.")
@json_option
def show_command(config: Path | None, everything: bool, reference: bool, as_json: bool) -> None:
    """Print the keys that are set, their values as TOML writes them, and where each was set.

    Examples:

    - `modelport config show`
    - `modelport config show --all --json`
    - `modelport config show --keys` prints the reference
    - `MODELPORT_SERVER__PORT=8123 modelport config show`
    """
    from modelport.core.cli.output import note, print_json, print_table
    from modelport.core.config.show import describe, show, toml_text

    if reference:
        keys = describe()
        if as_json:
            print_json(keys)
        else:
            print_table(
                ("key", "takes", "default", "variable", "meaning"),
                [(k.key, k.takes, toml_text(k.default), k.variable, k.help) for k in keys],
                "",
            )
        return
    found = loaded(config)
    shown = [key for key in show(found) if everything or key.origin != "default"]
    if as_json:
        print_json(shown)
        return
    note(f"configuration file: {found.file or 'none'}")
    print_table(
        ("key", "value", "set by"),
        [(key.key, toml_text(key.value), f"{key.origin} {key.place}".strip()) for key in shown],
        "Nothing is set: every key has its default. `modelport config show --all` lists them.",
    )
