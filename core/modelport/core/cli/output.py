"""How commands print: JSON with `--json`, else tables and lines for people. Results go to stdout, the rest to stderr."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import rich_click as click

__all__ = ["bytes_text", "note", "print_json", "print_table"]


def print_json(value: Any) -> None:
    """`value` as indented JSON; Structs, tuples and arrays included."""
    from modelport.contract.task import encode_hook

    encoded = msgspec.json.encode(value, enc_hook=encode_hook)
    click.echo(msgspec.json.format(encoded, indent=2).decode())


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], empty: str) -> None:
    """A table that pipes well: one line a row where the output is not a terminal. `empty` is said when there are no rows."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    listed = [[_cell(value) for value in row] for row in rows]
    if not listed:
        click.echo(empty)
        return
    console = Console()
    if not console.is_terminal:
        for row in [list(columns), *listed]:
            click.echo("\t".join(cell.replace("\n", " ") for cell in row))
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in listed:
        table.add_row(*(Text(cell) for cell in row))
    console.print(table)


def note(text: str) -> None:
    """A line beside the result, on stderr."""
    click.echo(text, err=True)


def bytes_text(size: int) -> str:
    """A size for people: `91 MB`, `2.3 GB`."""
    if size < 1000:
        return f"{size} B"
    power = min(int(math.log10(size) // 3), 4)
    scaled = size / 1000**power
    return f"{scaled:.{0 if scaled >= 100 or power < 3 else 1}f} {('B', 'kB', 'MB', 'GB', 'TB')[power]}"


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple, set, frozenset)):
        return ", ".join(str(item) for item in value)
    return str(value)
