"""Progress of long work: a live line per task on a terminal, log lines elsewhere. Always on stderr."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from modelport.contract.backend import Progress as Report

__all__ = ["ProgressView"]


class ProgressView:
    """A context manager; `task(label)` gives the `progress(what, fraction)` of one piece of work."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._live: Progress | None = None

    def __enter__(self) -> ProgressView:
        if self._console.is_terminal:
            columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=24), TimeElapsedColumn())
            self._live = Progress(*columns, console=self._console, transient=True)
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._live is not None:
            self._live.stop()

    def task(self, label: str) -> Report:
        """What to call with each step of `label`. A step whose fraction is not known reports 0."""
        if self._live is not None:
            live, number = self._live, self._live.add_task(label, total=None)

            def show(what: str, fraction: float) -> None:
                known = 0 < fraction <= 1
                live.update(
                    number, description=f"{label}: {what}", total=1 if known else None, completed=fraction if known else 0
                )

            return show
        last = ""

        def say(what: str, fraction: float) -> None:
            nonlocal last
            if what != last:
                last = what
                self._console.print(f"{label}: {what}", markup=False, highlight=False, soft_wrap=True)

        return say
