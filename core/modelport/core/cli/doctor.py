"""`modelport doctor`: what could be wrong here."""

from __future__ import annotations

import sys
from pathlib import Path

import rich_click as click

from modelport.core.cli.options import config_option, json_option

__all__ = ["command"]


@click.command("doctor")
@config_option
@json_option
def command(config: Path | None, as_json: bool) -> None:
    """Look for what could keep a server from working.

    Looks at configuration, plugins, hardware, folders, keys and network settings, and changes nothing. Status 1 if there is
    a problem; a warning is something to know.

    Examples:

    - `modelport doctor`
    - `modelport doctor --config modelport.toml`
    - `modelport doctor --json`
    """
    from modelport.core.cli.checkup import examine
    from modelport.core.cli.output import print_json

    findings = examine(config)
    if as_json:
        print_json(findings)
    else:
        signs = {"ok": ("✓", "green"), "warning": ("!", "yellow"), "problem": ("✗", "red")}
        for finding in findings:
            sign, color = signs[finding.state]
            click.echo(f"{click.style(sign, fg=color)} {finding.check}: {finding.detail}")
    if any(finding.state == "problem" for finding in findings):
        sys.exit(1)
