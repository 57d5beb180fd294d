"""How much memory a process holds."""

from __future__ import annotations

import os
from pathlib import Path

import psutil

__all__ = ["resident_bytes", "shared_out_bytes"]


def resident_bytes(pid: int | None = None) -> int:
    """Resident bytes of a process, by default this one; 0 if it is gone. Cheap enough for every heartbeat."""
    try:
        pages = Path(f"/proc/{pid or 'self'}/statm").read_bytes().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):
        pass
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0


def shared_out_bytes(pid: int | None = None) -> int:
    """Proportional bytes of a process: pages that several processes share count in parts, so that sums are true.

    Resident bytes where the system does not know. Walks the process's page tables: not for every heartbeat.
    """
    try:
        for line in Path(f"/proc/{pid or 'self'}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except (OSError, IndexError, ValueError):
        pass
    return resident_bytes(pid)
