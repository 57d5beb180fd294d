"""What macOS says of its chip and its memory."""

from __future__ import annotations

import platform
import subprocess

import psutil

__all__ = ["Host"]

_GIB = 1 << 30
_SMALL_BYTES = 36 * _GIB


class Host:
    """The machine; tests give one that answers otherwise."""

    @property
    def system(self) -> str:
        """`Darwin`, `Linux`, `Windows`."""
        return platform.system()

    @property
    def machine(self) -> str:
        """`arm64` on Apple silicon."""
        return platform.machine()

    @property
    def macos(self) -> tuple[int, int]:
        """Its version: (14, 5)."""
        parts = [*platform.mac_ver()[0].split("."), "0", "0"]
        return int(parts[0] or 0), int(parts[1] or 0)

    def chip(self) -> str:
        """`Apple M2 Max`."""
        return self._sysctl("machdep.cpu.brand_string") or "Apple silicon"

    def memory(self) -> tuple[int, int]:
        """(total, available) bytes of the memory that processor and GPU share."""
        memory = psutil.virtual_memory()
        return int(memory.total), int(memory.available)

    def budget_bytes(self) -> int:
        """Most bytes that the GPU may hold at once: the limit that was set, or macOS's own rule.

        By its rule that is two thirds of the memory of up to 36 GiB, three quarters of more. Metal names the exact figure, which
        the worker goes by.
        """
        total = self.memory()[0]
        limit = self._sysctl("iogpu.wired_limit_mb")
        if limit.isdigit() and int(limit):
            return min(int(limit) << 20, total)
        return total * 2 // 3 if total <= _SMALL_BYTES else total * 3 // 4

    def _sysctl(self, name: str) -> str:
        try:
            done = subprocess.run(["/usr/sbin/sysctl", "-n", name], capture_output=True, text=True, check=False, timeout=5)
        except (OSError, subprocess.TimeoutExpired):
            return ""
        return done.stdout.strip() if done.returncode == 0 else ""
