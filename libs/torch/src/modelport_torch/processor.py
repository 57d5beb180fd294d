"""What follows from computing on the processor. Torch-free."""

from __future__ import annotations

import os

__all__ = ["linger"]

_SHARE = 0.25


def linger(threads: int) -> float:
    """`Limits.linger` of a device that is the processor.

    With a thread on every core, requests that are taken in while a batch computes hold it up by as much: nothing is won by not
    waiting for them. Cores that are left over take them in meanwhile, and the device should not idle.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return _SHARE if threads >= cores else 0.0
