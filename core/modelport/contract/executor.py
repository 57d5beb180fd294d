"""Executors: where replicas of a model run. The core brings `process` (the default) and `thread`; a
`modelport.executors` plugin may bring another machine.

The core speaks to a replica in calls and parts, never in Python objects of a model: a replica may be a child process or far
away. Requests and results are the task's Structs, encoded by `contract.wire`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeAlias

import msgspec

from modelport.contract.card import ModelCard
from modelport.contract.device import Device
from modelport.contract.errors import ModelportError, WireError
from modelport.contract.program import Program
from modelport.contract.reply import Timings, Usage
from modelport.contract.runner import Limits

__all__ = [
    "Call",
    "DeltaPart",
    "Executor",
    "FailedPart",
    "Part",
    "Replica",
    "ReplicaEvents",
    "ReplicaReady",
    "ReplicaSpec",
    "ReplicaStats",
    "ResultPart",
    "StartedPart",
]


class ReplicaSpec(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a worker needs to load one deployment; it travels as data.

    Args:
        name: The deployment's name, for logs and process titles.
        card: The checkpoint.
        skill: Entry point name and module of the skill (`modelport_skill_x`), and the same of the backend; the worker imports
            these two plugins and no others. The backend is empty for a skill without a program.
        tasks: The tasks served, the default first.
        program: What to load, or None.
        devices: Where.
        threads: CPU threads for the backend.
        cpu_workers: Threads of the CPU pool.
        interpreter: The Python to start; empty means this one.
        environment: Set before the process starts.
        params_elsewhere: What the other backends that could run it would honour, so that a refusal can name one.
        heartbeat_s: Interval of heartbeats.
        stuck_s: Seconds without progress, though there is work, after which it is ended; 0 is never.
        load_stall_s: Seconds of silence while loading after which the load counts as stuck; 0 is never.
        memory_limit_bytes: Resident memory over which the worker counts as leaking and is ended: at once if it is idle, a quarter
            above if it is busy. None is no limit.
    """

    name: str
    card: ModelCard
    skill: str
    skill_module: str
    tasks: tuple[str, ...]
    backend: str = ""
    backend_module: str = ""
    program: Program | None = None
    checkpoints: dict[str, Path] = {}
    devices: tuple[Device, ...] = ()
    dtype: str = "auto"
    threads: int = 1
    cpu_workers: int = 2
    max_length: int | None = None
    max_items: int = 32
    cache_bytes: int | None = None
    backend_options: dict[str, Any] = {}
    skill_options: dict[str, Any] = {}
    interpreter: str = ""
    environment: dict[str, str] = {}
    params_elsewhere: dict[str, frozenset[str]] = {}
    heartbeat_s: float = 1.0
    stuck_s: float = 120.0
    load_stall_s: float = 120.0
    memory_limit_bytes: int | None = None


class ReplicaReady(msgspec.Struct, frozen=True, kw_only=True):
    """A loaded replica. `facts` go into the placement record; `memory_bytes` is what the load took, measured."""

    limits: Limits | None = None
    facts: dict[str, str] = {}
    memory_bytes: int = 0
    load_s: float = 0.0
    pid: int = 0


class ReplicaStats(msgspec.Struct, frozen=True, kw_only=True):
    """Counters of a replica since it started; heartbeats carry them.

    `running` and `waiting` count items of the device, `preparing` jobs of the CPU pool; `progress` grows with what the device
    does, `prepared` with the jobs that end. Either of them that has work and stays where it is is stuck.
    """

    items: int = 0
    batches: int = 0
    batch_tokens: int = 0
    padded_tokens: int = 0
    generated_tokens: int = 0
    steps: int = 0
    running: int = 0
    waiting: int = 0
    preparing: int = 0
    cache_used: int = 0
    cache_total: int = 0
    device_busy_s: float = 0.0
    resident_bytes: int = 0
    progress: int = 0
    prepared: int = 0


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """One request on its way to a replica.

    `deadline_s` counts from its sending. `size` is about how many bytes the request holds; 0 if that is not known.
    """

    id: int
    task: str
    request: msgspec.Struct
    stream: bool = False
    deadline_s: float | None = None
    priority: int = 0
    request_id: str = ""
    size: int = 0


class StartedPart(msgspec.Struct, frozen=True):
    """The call has reached the device: it is not to be tried again elsewhere. Comes at most once, first."""


class DeltaPart(msgspec.Struct, frozen=True):
    """A piece of a streamed answer: the task's delta Struct."""

    delta: msgspec.Struct


class ResultPart(msgspec.Struct, frozen=True):
    """The end. `result` is the task's result Struct, or None after deltas."""

    result: msgspec.Struct | None
    usage: Usage
    timings: Timings


class FailedPart(msgspec.Struct, frozen=True):
    """The end, in failure."""

    error: WireError


Part: TypeAlias = StartedPart | DeltaPart | ResultPart | FailedPart


class ReplicaEvents(Protocol):
    """What a replica tells its owner. Called on the server's event loop; must not block."""

    def progress(self, what: str, fraction: float) -> None:
        """The load goes on."""

    def stats(self, stats: ReplicaStats) -> None:
        """A heartbeat."""

    def died(self, cause: ModelportError, unstarted: list[int]) -> None:
        """It is gone without having been asked to. Started calls have had their `FailedPart`; `unstarted` are the ids of
        calls that never reached the device and may be queued once more. Comes once, and nothing after it."""


class Replica(Protocol):
    """One loaded deployment somewhere. All methods are called on the server's event loop."""

    async def start(self) -> ReplicaReady:
        """Starts and loads.

        Raises:
            ModelportError: the cause, in a sentence. The replica is gone then.
        """

    def call(self, call: Call, receive: Callable[[Part], None]) -> None:
        """Sends a call. `receive` gets its parts, on the event loop, in order, the last a result or a failure (or `died` lists
        its id). At most 64 deltas wait undelivered."""

    def cancel(self, id: int) -> None:
        """Ends a call; its last part is a `FailedPart` of kind `cancelled`. Unknown ids are ignored."""

    async def drain(self) -> None:
        """Returns when no call is open. New ones are the owner's to refuse."""

    async def stop(self) -> int:
        """Ends it: politely, then by force. Returns the bytes that were measured to come back. Idempotent."""


class Executor(Protocol):
    """A way to run replicas."""

    name: ClassVar[str]

    def replica(self, spec: ReplicaSpec, events: ReplicaEvents) -> Replica:
        """A replica, not started yet."""

    async def close(self) -> None:
        """Stops whatever still runs."""
