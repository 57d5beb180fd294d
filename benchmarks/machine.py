"""The machine that measures: its cores, and what it is."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

__all__ = ["CLIENT_CORE", "SERVER_CORE", "describe", "pinned", "versions"]

_CORES = sorted(os.sched_getaffinity(0))
SERVER_CORE = _CORES[0]
"""Where a server, or the loop that it is compared with, runs."""
CLIENT_CORE = _CORES[-1]
"""Where the clients run: another core, if there is one."""


def pinned(core: int) -> Callable[[], None]:
    """For `subprocess.Popen(preexec_fn=…)`: the child and all that it starts stay on `core`."""
    return lambda: os.sched_setaffinity(0, {core})


def describe() -> str:
    """The processor and the Python, in a line."""
    cpu = platform.processor()
    info = Path("/proc/cpuinfo")
    if info.exists():
        cpu = next((line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")), cpu)
        flags = next((line.split(":")[1].split() for line in info.read_text().splitlines() if line.startswith("flags")), [])
        cpu += "".join(f", {flag}" for flag in ("avx512_bf16", "avx512_vnni", "amx_bf16") if flag in flags)
    return f"one core of {len(_CORES)} ({cpu}), Python {platform.python_version()}"


def versions() -> str:
    """What computes."""
    names = ("torch", "transformers", "openvino", "openvino-genai", "tokenizers", "litestar")
    return ", ".join(f"{name} {metadata.version(name)}" for name in names)
