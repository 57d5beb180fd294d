"""The results as a page and as a chart."""

from __future__ import annotations

from html import escape
from pathlib import Path

from machine import describe, versions
from rows import Row

__all__ = ["line", "write"]

_HEAD = """| work | unit | raw loop | modelport (spread) | target | other servers | seen by the clients |
|---|---|---|---|---|---|---|
"""
_TEXT = """# Benchmarks

Written by `python benchmarks/run.py --page docs`, in one run of {rounds} rounds on {machine}, with {versions}.

Each row is the processor time (user and system) of the server and all its processes, or of the raw loop, for one text, token or
request: the server and the loop take turns on one core, the clients run on another. So what else a shared machine does counts
little. Times to an answer are by the clock. The raw loop is the same engine called plainly: it tokenises, computes and pools, or
detokenises, and does no more. Every prompt and text is new, so nothing is answered from a cache but the chat template's tokens.
A stream alone reads all weights from memory for every token, and how fast that goes depends on where the system put them: so its
rows are medians over several servers and as many loops, each started anew.

"Other servers" are the best of those that users have today, measured earlier on such a machine under the same conditions, not in
this run.

![Processor time, as a multiple of the raw loop](benchmarks.svg)

{table}
✓ is within the target, ✗ is not.

## Each part by itself

    python benchmarks/run.py embeddings    # 1, 8 and 64 clients, short and long texts, 32 texts a request
    python benchmarks/run.py chats         # 1, 4 and 16 streams, time to first token, a long prompt beside eight streams
    python benchmarks/run.py lifetime      # a request's overhead, cold start, second model, memory, idle
"""
_WIDTH, _LEFT, _STEP, _SCALE = 990, 520, 30, 150


def line(row: Row) -> str:
    """A row of the table."""
    loop = "" if row.loop is None else f"{_figure(row.loop)} ({row.server / row.loop:.2f}×)"
    spread = "" if row.spread[0] == row.spread[1] else f" ({_figure(row.spread[0])}–{_figure(row.spread[1])})"
    mark = "✓" if row.met else "✗"
    seen = "; ".join(filter(None, (row.wall, row.note)))
    target = f"≤ {_figure(row.target)} {mark}"
    if row.is_beyond:
        target = f"≤ {_figure(row.target)}, less than the engine alone needs; 1.07 × loop is {_figure(row.bar)} {mark}"
    return f"| {row.work} | {row.unit} | {loop} | **{_figure(row.server)}**{spread} | {target} | {row.users} | {seen} |"


def write(folder: Path, rows: list[Row], rounds: int) -> None:
    """Writes benchmarks.md and benchmarks.svg."""
    table = _HEAD + "\n".join(line(row) for row in rows) + "\n"
    text = _TEXT.format(rounds=rounds, machine=describe(), versions=versions(), table=table)
    (folder / "benchmarks.md").write_text(text, encoding="utf-8")
    (folder / "benchmarks.svg").write_text(_chart([row for row in rows if row.loop is not None]), encoding="utf-8")


def _chart(rows: list[Row]) -> str:
    """Bars from 0: the server's cost as a multiple of the loop's; a line at 1 is the loop, ticks are the targets."""
    height = _STEP * len(rows) + 60
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" font-family="sans-serif" font-size="13">',
        f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>',
        '<text x="12" y="22" font-weight="bold">Processor time, as a multiple of the raw loop (less is better)</text>',
    ]
    for index, row in enumerate(rows):
        assert row.loop is not None
        top = 36 + index * _STEP
        width, target = row.server / row.loop * _SCALE, row.bar / row.loop * _SCALE
        label = f"{row.server / row.loop:.2f}× ({_figure(row.server)} {row.unit})"
        parts += [
            f'<text x="{_LEFT - 10}" y="{top + 16}" text-anchor="end">{escape(row.work)}</text>',
            f'<rect x="{_LEFT}" y="{top + 3}" width="{width:.1f}" height="18" fill="{"#2a7f62" if row.met else "#c8553d"}"/>',
            f'<rect x="{_LEFT + target:.1f}" y="{top}" width="2" height="24" fill="#222222"/>',
            f'<text x="{_LEFT + max(width, target) + 8:.1f}" y="{top + 16}">{escape(label)}</text>',
        ]
    bottom = 36 + len(rows) * _STEP
    parts += [
        f'<line x1="{_LEFT + _SCALE}" y1="30" x2="{_LEFT + _SCALE}" y2="{bottom}" stroke="#888888" stroke-dasharray="4 3"/>',
        f'<text x="{_LEFT + _SCALE}" y="{bottom + 16}" text-anchor="middle" fill="#555555">raw loop</text>',
        f'<text x="{_WIDTH - 12}" y="{bottom + 16}" text-anchor="end" fill="#555555">black tick: target</text>',
        "</svg>\n",
    ]
    return "\n".join(parts)


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
