"""Hardware backends: what a `modelport.backends` plugin registers.

A complete backend for programs over NumPy is `modelport.testing.fakes.NumpyBackend`: one page, and the suite in
`modelport.testing.backend` runs over it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

import msgspec

from modelport.contract.card import ModelCard
from modelport.contract.device import Device, Probe
from modelport.contract.program import Program
from modelport.contract.runner import Runner

__all__ = ["Backend", "LoadContext", "Progress", "Verdict"]


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a program can run on devices.

    `answer` is `yes`, `converted` (after a conversion that takes time once) or `no`. `reason` is a sentence a person can act
    on; for `no` it says what would have to change. `memory_bytes` is weights, activations and cache for the
    context asked. `params` repeats what the runner's `limits.params` will be, so that placement can honour
    `models.NAME.require` before anything is loaded. `dtype` is what would be computed in.
    """

    answer: Literal["yes", "converted", "no"]
    reason: str
    memory_bytes: int = 0
    params: frozenset[str] = frozenset()
    dtype: str = ""

    @property
    def runs(self) -> bool:
        """Whether the answer is not `no`."""
        return self.answer != "no"


Progress = Callable[[str, float], None]
"""`progress(what, fraction)`: what is being done and how much of it, 0 to 1. Call it often: silence is a stall."""


class LoadContext(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a backend needs to load a program.

    Args:
        card: The checkpoint; `card.path` is a local folder.
        program: What to run.
        checkpoints: Local folders of `program.checkpoints`, by name, and `main`.
        devices: Where; at least one.
        dtype: `auto` (the checkpoint's own, or the next wider the device has), `fast`, or a NumPy name.
        threads: Host threads this worker may use.
        max_length: Most tokens of a sequence to make room for; `None` for the card's limit.
        max_items: Most sequences at once to make room for.
        cache_bytes: Most bytes for key/value caches; `None` lets the backend decide.
        options: `backends.NAME` of the configuration, and `models.NAME.backend_options` over it.
    """

    card: ModelCard
    program: Program
    checkpoints: dict[str, Path]
    devices: tuple[Device, ...]
    dtype: str = "auto"
    threads: int = 1
    max_length: int | None = None
    max_items: int = 32
    cache_bytes: int | None = None
    options: dict[str, Any] = {}


class Backend(Protocol):
    """One kind of accelerator.

    Attributes:
        name: Its name in configuration and in `Device.backend`.
        rank: Its place when nothing else decides; lower is preferred (GPUs 10–30, converters 40–50, cpu 100).
        imports_torch: Whether loading imports torch; such a backend is refused in the server's own process.
        preload: Modules that a spare worker imports ahead of time.
    """

    name: ClassVar[str]
    rank: ClassVar[int]
    imports_torch: ClassVar[bool]
    preload: ClassVar[tuple[str, ...]]

    def probe(self) -> Probe:
        """Finds devices. Runs in a child process of its own, with a timeout; may import drivers and may crash."""

    def verdict(self, program: Program, card: ModelCard, devices: Sequence[Device], dtype: str = "auto") -> Verdict:
        """Judges. Runs in the server, often: pure, torch-free, no I/O, well under a millisecond.

        `dtype` is what the configuration asks for, as in `LoadContext`; a precision that the devices lack is a `no`.
        """

    def environment(self, devices: Sequence[Device], threads: int) -> dict[str, str]:
        """Environment variables for the worker, set before it starts (thread counts, visible devices)."""

    def load(self, context: LoadContext, progress: Progress) -> Runner:
        """Loads weights. Runs in the worker, on the device thread, once per deployment.

        Raises:
            ConfigurationError: the checkpoint or the options cannot work; the message says what to do.
            MemoryError: it does not fit (`OutOfMemory` is one); placement moves on.
        """
