"""`modelport recommend`: which model `auto` would be, as a running server has learned it."""

from __future__ import annotations

import rich_click as click

from modelport.core.cli.options import json_option, server_options

__all__ = ["command"]


@click.command("recommend")
@click.option("--task", metavar="TASK", help="Only this task.")
@server_options
@json_option
def command(task: str | None, url: str, key: str | None, as_json: bool) -> None:
    """Show which model answers best, task by task, as a running server has learned it.

    A request for the model `auto` goes to the best of those that do its task, and now and then to another
    (`learning.explore`). What counts is time on the device, failures, and the ratings sent to `/v1/feedback`.

    Examples:

    - `modelport recommend`
    - `modelport recommend --task text-generation --json`
    """
    from modelport.client import Client
    from modelport.core.cli.output import print_json, print_table

    with Client(url, key) as client:
        found = client.recommendations(task)
    if as_json:
        print_json(found)
        return
    rows = [
        (each["task"], place or "", arm["model"], arm["reward"], arm["observations"])
        for each in found
        for place, arm in enumerate(each["arms"], start=1)
    ]
    print_table(("task", "place", "model", "reward", "observations"), rows, "The server has read no model that does a task yet.")
