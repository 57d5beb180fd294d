"""What the operating system says of cores and memory, within the limits of the container or affinity we run in."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path

import psutil

__all__ = ["Host"]


class Host:
    """The machine as this process may use it.

    Args:
        root: Where `/proc` and `/sys` are; tests give a folder of their own.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root

    def cores(self) -> int:
        """Cores that may be used: the affinity mask, cut by a cgroup's quota; at least 1."""
        try:
            usable = len(os.sched_getaffinity(0))
        except AttributeError:  # not on macOS and Windows
            usable = os.cpu_count() or 1
        quota = self._read("sys/fs/cgroup/cpu.max").split()
        if len(quota) == 2 and quota[0].isdigit() and int(quota[1]):
            usable = min(usable, max(int(quota[0]) // int(quota[1]), 1))
        return usable

    def memory(self) -> tuple[int, int]:
        """(total, free) bytes, cut by a cgroup's limit. Free counts what the system would give back from its caches."""
        memory = psutil.virtual_memory()
        total, free = int(memory.total), int(memory.available)
        limit, used = (self._read(f"sys/fs/cgroup/memory.{name}") for name in ("max", "current"))
        if limit.isdigit() and 0 < int(limit) < total:
            total = int(limit)
            if used.isdigit():
                free = min(free, max(total - int(used) + self._file_cache(), 0))
        return total, free

    def flags(self) -> frozenset[str]:
        """Instruction sets by Linux's names; empty where there is no /proc/cpuinfo."""
        for line in self._read("proc/cpuinfo").splitlines():
            key, _, value = line.partition(":")
            if key.strip() in ("flags", "Features"):
                return frozenset(value.split())
        return frozenset()

    def has_fast_bfloat16(self, flags: frozenset[str]) -> bool:
        """Whether bfloat16 products are instructions of their own here (AVX-512 BF16, AMX, Arm's BF16)."""
        return bool(flags & {"avx512_bf16", "amx_bf16", "bf16"})

    def model_name(self) -> str:
        """What people call this processor."""
        for line in self._read("proc/cpuinfo").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name" and value.strip():
                return value.strip()
        return platform.processor() or platform.machine() or "CPU"

    def architecture(self) -> str:
        """`x86_64`, `aarch64`, …"""
        return platform.machine()

    def versions(self, *distributions: str) -> dict[str, str]:
        """Installed versions, without importing anything."""
        found = {}
        for name in distributions:
            try:
                found[name] = metadata.version(name)
            except metadata.PackageNotFoundError:
                found[name] = "not installed"
        return found

    def _file_cache(self) -> int:
        """Bytes of a cgroup's usage that are cached files, which the kernel drops when memory is asked for."""
        for line in self._read("sys/fs/cgroup/memory.stat").splitlines():
            key, _, value = line.partition(" ")
            if key == "inactive_file" and value.strip().isdigit():
                return int(value)
        return 0

    def _read(self, path: str) -> str:
        try:
            return (self._root / path).read_text(encoding="utf-8", errors="replace").strip()
        except OSError:
            return ""
