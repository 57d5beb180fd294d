"""Progress of long work: a live line for each piece on a terminal, plain lines elsewhere. Always on stderr."""

from __future__ import annotations

import functools
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console

from modelport.contract.backend import Progress as Report

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

__all__ = ["ProgressView"]


class ProgressView:
    """A context manager; `report(label, what, fraction)` shows a step of one piece of work.

    The live lines appear with the first report and go when nothing is left, so that a view may stand open for long.
    """

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._live: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._said: dict[str, str] = {}

    def __enter__(self) -> ProgressView:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for label in list(self._said):
            self.done(label)

    @property
    def is_live(self) -> bool:
        """Whether somebody watches: stderr is a terminal."""
        return self._console.is_terminal

    def task(self, label: str) -> Report:
        """`report` for one piece of work, in the shape in which progress is passed on."""
        return functools.partial(self.report, label)

    def report(self, label: str, what: str, fraction: float) -> None:
        """Shows that `label` does `what`. A step whose fraction is not known reports 0."""
        before = self._said.get(label)
        self._said[label] = what
        if not self.is_live:
            if what != before:
                self._console.print(f"{label}: {what}", markup=False, highlight=False, soft_wrap=True)
            return
        if self._live is None:
            self._live = _live_lines(self._console)
        if label not in self._tasks:
            self._tasks[label] = self._live.add_task(label, total=None)
        known = 0 < fraction <= 1
        self._live.update(
            self._tasks[label], description=f"{label}: {what}", total=1 if known else None, completed=fraction if known else 0
        )

    def done(self, label: str) -> None:
        """Takes the line of `label` away."""
        self._said.pop(label, None)
        number = self._tasks.pop(label, None)
        if self._live is not None and number is not None:
            self._live.remove_task(number)
            if not self._tasks:
                self._live.stop()
                self._live = None


def _live_lines(console: Console) -> Progress:
    # imported with the first line that is shown: a server that loads nothing starts without it
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(bar_width=24), TimeElapsedColumn())
    live = Progress(*columns, console=console, transient=True)
    live.start()
    return live
