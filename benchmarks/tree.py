"""What a process and all its children have used: processor time and memory."""

from __future__ import annotations

from pathlib import Path

import psutil

__all__ = ["Tree"]


class Tree:
    """The process `pid` and whatever it has started.

    Args:
        pid: The root.
    """

    def __init__(self, pid: int) -> None:
        self._root = psutil.Process(pid)

    def cpu_ms(self) -> float:
        """User and system time of everything alive, and of children that are gone and have been waited for, in milliseconds."""
        total = 0.0
        for process in self._members():
            try:
                total += sum(process.cpu_times()[:4])  # user, system, and both of ended children
            except psutil.NoSuchProcess:
                continue
        return total * 1000

    def parts_ms(self) -> dict[str, float]:
        """The same to the nanosecond, by part: the server, the loops of its workers (their main threads), and their engines."""
        found = {"server": 0.0, "workers' loops": 0.0, "engines": 0.0}
        for process in self._members():
            for thread in Path(f"/proc/{process.pid}/task").glob("*"):
                try:
                    took_ms = int((thread / "schedstat").read_text().split()[0]) / 1e6
                except (FileNotFoundError, ProcessLookupError):
                    continue
                is_loop = int(thread.name) == process.pid
                found["server" if process.pid == self._root.pid else "workers' loops" if is_loop else "engines"] += took_ms
        return found

    def pss_mib(self) -> float:
        """Memory, what is shared counted in equal parts: the `Pss` of /proc/PID/smaps_rollup, in MiB."""
        total = 0
        for process in self._members():
            try:
                lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()
            except (FileNotFoundError, ProcessLookupError):
                continue
            total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
        return total / 1024

    def processes(self) -> int:
        """How many there are."""
        return len(self._members())

    def _members(self) -> list[psutil.Process]:
        return [self._root, *self._root.children(recursive=True)]
