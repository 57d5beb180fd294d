from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from modelport.contract.card import ModelCard
from modelport.contract.errors import ModelportError, error_from_wire
from modelport.contract.executor import Call, DeltaPart, FailedPart, Part, ReplicaSpec, ReplicaStats, ResultPart, StartedPart
from modelport.core.executors.process import ProcessExecutor

PLUGINS = Path(__file__).parent / "plugins"


class Owner:
    """The owner of a replica: keeps everything that it is told."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.stats_seen: list[ReplicaStats] = []
        self.deaths: list[tuple[ModelportError, list[int]]] = []
        self.changed = asyncio.Event()

    def progress(self, what: str, fraction: float) -> None:
        self.said.append(what)
        self.changed.set()

    def stats(self, stats: ReplicaStats) -> None:
        self.stats_seen.append(stats)
        self.changed.set()

    def died(self, cause: ModelportError, unstarted: list[int]) -> None:
        self.deaths.append((cause, unstarted))
        self.changed.set()

    async def until(self, condition: Callable[[], Any], timeout_s: float = 20.0) -> None:
        async with asyncio.timeout(timeout_s):
            while not condition():
                self.changed.clear()
                await self.changed.wait()


class Answer:
    """The parts of one call."""

    def __init__(self) -> None:
        self.parts: list[Part] = []
        self.changed = asyncio.Event()

    def receive(self, part: Part) -> None:
        self.parts.append(part)
        self.changed.set()

    async def until(self, condition: Callable[[], Any], timeout_s: float = 20.0) -> None:
        async with asyncio.timeout(timeout_s):
            while not condition():
                self.changed.clear()
                await self.changed.wait()

    @property
    def has_started(self) -> bool:
        return any(isinstance(part, StartedPart) for part in self.parts)

    @property
    def deltas(self) -> list[Any]:
        return [part.delta for part in self.parts if isinstance(part, DeltaPart)]

    @property
    def end(self) -> ResultPart | FailedPart | None:
        last = self.parts[-1] if self.parts else None
        return last if isinstance(last, ResultPart | FailedPart) else None

    async def result(self, timeout_s: float = 20.0) -> Any:
        await self.until(lambda: self.end, timeout_s)
        if isinstance(self.end, FailedPart):
            raise error_from_wire(self.end.error)
        assert self.end is not None
        return self.end.result


class Caller:
    """Sends calls to a replica, numbering them."""

    def __init__(self, replica: Any) -> None:
        self.replica = replica
        self.last = 0

    def send(self, request: msgspec.Struct, task: str = "odd", **options: Any) -> Answer:
        self.last += 1
        answer = Answer()
        self.replica.call(Call(id=self.last, task=task, request=request, **options), answer.receive)
        return answer


@pytest.fixture
def odd(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(PLUGINS))
    import odd_plugin

    yield odd_plugin
    sys.modules.pop("odd_plugin", None)


@pytest.fixture
def spec(odd: Any) -> ReplicaSpec:
    return ReplicaSpec(
        name="odd",
        card=ModelCard(name="odd", source="skill:odd"),
        skill="odd",
        skill_module="odd_plugin",
        tasks=("odd",),
        environment={"PYTHONPATH": str(PLUGINS)},
        heartbeat_s=0.05,
    )


@pytest.fixture
async def executor() -> AsyncIterator[ProcessExecutor]:
    executor = ProcessExecutor()
    yield executor
    await executor.close()


@pytest.fixture
def owner() -> Owner:
    return Owner()


@pytest.fixture
async def caller(executor: ProcessExecutor, spec: ReplicaSpec, owner: Owner) -> Caller:
    replica = executor.replica(spec, owner)
    await replica.start()
    return Caller(replica)


@pytest.fixture
def call_to() -> Callable[[Any], Caller]:
    return Caller


@pytest.fixture
def new_owner() -> Callable[[], Owner]:
    return Owner
