"""One row of the results: a piece of work, what the raw loop needs for it, and what the server needs."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec
from machine import SERVER_CORE, pinned

__all__ = ["Loop", "Row", "median"]


_AROUND = 1.07


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured.

    Args:
        work: What was done, with the type it was computed in.
        unit: Of `loop`, `server` and `target`; for all, less is better.
        server: What modelport needed: the median of the rounds.
        spread: The least and the most of the rounds.
        target: What it should need at most.
        is_beyond: The target is less than what the engine alone was measured to need, called plainly. Then no server around this
            engine can reach it, and the bar is 1.07 × loop.
        loop: What the same calls need without a server, where there are such calls.
        users: The best of the servers that users have today, measured earlier on such a machine, for this work.
        wall: The same from the clients' side, as a sentence.
        note: What the reader must know.
    """

    work: str
    unit: str
    server: float
    spread: tuple[float, float]
    target: float
    is_beyond: bool = False
    loop: float | None = None
    users: str = ""
    wall: str = ""
    note: str = ""

    @property
    def bar(self) -> float:
        """What the server is held to."""
        return max(self.target, _AROUND * self.loop) if self.is_beyond and self.loop else self.target

    @property
    def met(self) -> bool:
        """Whether the server is within it."""
        return self.server <= self.bar


class Loop:
    """The raw loops, in a child process on the server's core."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("loops.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            preexec_fn=pinned(SERVER_CORE),
        )

    def cpu_ms(self, loop: str, setup: dict[str, Any], *work: Any) -> float:
        """Processor milliseconds of one run."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"loop": loop, "setup": setup, "work": work}) + "\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(60)
        self._process.stdout.close()


def median(values: list[float]) -> tuple[float, tuple[float, float]]:
    """The median, and the least and the most."""
    return statistics.median(values), (min(values), max(values))
