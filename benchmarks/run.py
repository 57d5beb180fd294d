"""Measures the server against the same models called plainly, in turns and in one run, on one core.

    python benchmarks/run.py                          # every row
    python benchmarks/run.py embeddings --rounds 7    # some of them
    python benchmarks/run.py --page docs              # and write docs/benchmarks.md and docs/benchmarks.svg

Costs are processor time of the whole process tree, so noise counts less than by the clock; still, nothing else should run.
Needs the demo models (`modelport demo`).
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path

import chats
import embeddings
import lifetime
import msgspec
import page
from machine import CLIENT_CORE
from rows import Row

PARTS: dict[str, Callable[[int], list[Row]]] = {
    "embeddings": embeddings.measure,
    "chats": chats.measure,
    "lifetime": lifetime.measure,
}


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"only these: {', '.join(PARTS)}")
    parser.add_argument("--rounds", type=int, default=5, help="turns of loop and server per row")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows there")
    parser.add_argument("--page", type=Path, metavar="FOLDER", help="also write benchmarks.md and benchmarks.svg there")
    args = parser.parse_args()
    if unknown := set(args.parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    os.sched_setaffinity(0, {CLIENT_CORE})
    rows: list[Row] = []
    for part in args.parts or PARTS:
        for row in PARTS[part](args.rounds):
            print(page.line(row), flush=True)
            rows.append(row)
    if args.json:
        args.json.write_bytes(msgspec.json.format(msgspec.json.encode(rows)))
    if args.page:
        page.write(args.page, rows, args.rounds)


if __name__ == "__main__":
    main()
