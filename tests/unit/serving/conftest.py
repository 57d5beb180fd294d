"""A whole serving room on fakes: scripted replicas, a clock that the test turns, and the real catalog, keeper and host."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest

from modelport.contract import (
    ArraySpec,
    Cancelled,
    Claim,
    Device,
    Forward,
    ModelFailed,
    ModelportError,
    Output,
    Probe,
    Program,
    Skill,
    Task,
    Timings,
    Usage,
    Verdict,
)
from modelport.contract.executor import (
    Call,
    DeltaPart,
    FailedPart,
    ReplicaEvents,
    ReplicaReady,
    ReplicaSpec,
    ResultPart,
    StartedPart,
)
from modelport.core.catalog.catalog import Catalog
from modelport.core.config.settings import Settings
from modelport.core.placement.hardware import Hardware
from modelport.core.plugins.registry import Registry
from modelport.core.serving.host import Host
from modelport.core.serving.keys import Keyring
from modelport.core.serving.principal import Caller, anonymous


class EchoRequest(msgspec.Struct):
    text: str


class EchoResult(msgspec.Struct):
    text: str


class EchoDelta(msgspec.Struct):
    text: str


def join(deltas: Any) -> EchoResult:
    return EchoResult("".join(delta.text for delta in deltas))


ECHO = Task("echo", EchoRequest, EchoResult, EchoDelta, join, lambda first, second: EchoDelta(first.text + second.text))
COUNT = Task("count", EchoRequest, EchoResult)
PROGRAM = Program({"main": Forward(head="feature-extraction", inputs=(ArraySpec("input_ids"),), outputs=(Output("x"),))})
OTHER = Program({"main": Forward(head="token-classification", inputs=(ArraySpec("input_ids"),), outputs=(Output("x"),))})


class EchoSkill(Skill):
    """Serves `echo` and `count`: from one program, or from two if the model's options say so."""

    name = "echo"
    tasks = (ECHO, COUNT)

    def claim(self, card: Any) -> Claim | None:
        return Claim(("echo", "count"), 100, "asked for")

    def programs(self, card: Any) -> dict[str, Program]:
        return {"echo": PROGRAM, "count": OTHER if card.options.get("two") else PROGRAM}


class PlainSkill(Skill):
    name = "plain"
    tasks = (ECHO,)

    def claim(self, card: Any) -> Claim | None:
        return Claim(("echo",), 10, "asked for")


class FakeBackend:
    imports_torch = False
    preload = ()

    def __init__(self, name: str, rank: int, need: Callable[[str], int]) -> None:
        self.name, self.rank, self._need = name, rank, need

    def probe(self) -> Probe:
        raise AssertionError("the probes of these tests are given")

    def verdict(self, program: Program, card: Any, devices: Any, dtype: str = "auto") -> Verdict:
        return Verdict(answer="yes", reason="it can", memory_bytes=self._need(card.name))

    def environment(self, devices: Any, threads: int) -> dict[str, str]:
        return {"FAKE": self.name}

    def load(self, context: Any, progress: Any) -> Any:
        raise AssertionError("replicas of these tests are fakes")


class FakeClock:
    def __init__(self) -> None:
        self._now = 1000.0
        self._timers: list[tuple[float, int, Any]] = []
        self._order = itertools.count()

    def now(self) -> float:
        return self._now

    def later(self, delay_s: float, callback: Callable[[], None]) -> Any:
        timer = FakeTimer(callback)
        heapq.heappush(self._timers, (self._now + delay_s, next(self._order), timer))
        return timer

    def turn(self, seconds: float) -> None:
        """Moves the time on; timers fire in their order, those that they set included."""
        end = self._now + seconds
        while self._timers and self._timers[0][0] <= end:
            at, _, timer = heapq.heappop(self._timers)
            self._now = max(self._now, at)
            timer.fire()
        self._now = end


class FakeTimer:
    def __init__(self, callback: Callable[[], None]) -> None:
        self._callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        self._callback = None

    def fire(self) -> None:
        callback, self._callback = self._callback, None
        if callback is not None:
            callback()


class FakeReplica:
    """A replica that answers at once, or does what the test says.

    Attributes:
        open: Calls that it holds, by id.
        seen: Every call it ever got.
    """

    def __init__(self, spec: ReplicaSpec, events: ReplicaEvents, executor: FakeExecutor) -> None:
        self.spec, self.events, self.executor = spec, events, executor
        self.open: dict[int, tuple[Call, Any]] = {}
        self.started: set[int] = set()
        self.seen: list[Call] = []
        self.cancelled: list[int] = []
        self.is_running = False
        self.stops = 0
        self._idle = asyncio.Event()
        self._idle.set()

    async def start(self) -> ReplicaReady:
        self.executor.loading.append(self)
        self.events.progress("reading weights", 0.5)
        try:
            await self.executor.gate.wait()
        finally:
            self.executor.loading.remove(self)
        failures = self.executor.failures.get(self.spec.backend, [])
        if failures:
            raise failures.pop(0)
        self.is_running = True
        self.executor.running.append(self)
        self.executor.loads += 1
        return ReplicaReady(memory_bytes=self.executor.measured, load_s=2.0, pid=1, facts={"dtype": "float32"})

    def call(self, call: Call, receive: Any) -> None:
        assert self.is_running, "a call reached a replica that is not running"
        self.seen.append(call)
        self.open[call.id] = (call, receive)
        self._idle.clear()
        if (fault := self.executor.broken.get(self.spec.backend)) is not None:
            self.begin(call.id)
            asyncio.get_running_loop().call_soon(self.fail, call.id, fault)
        elif self.executor.answers:
            asyncio.get_running_loop().call_soon(self.finish, call.id)

    def begin(self, id: int) -> None:
        if id in self.open and id not in self.started:
            self.started.add(id)
            self.open[id][1](StartedPart())

    def delta(self, id: int, text: str) -> None:
        self.begin(id)
        self.open[id][1](DeltaPart(EchoDelta(text)))

    def finish(self, id: int) -> None:
        if id not in self.open:
            return
        self.begin(id)
        call, _ = self.open[id]
        result = None if call.stream else EchoResult(call.request.text)
        run_s = self.executor.run_s.get(self.spec.card.name, self.executor.run_s.get(self.spec.backend, 0.25))
        self._end(id, ResultPart(result, Usage(prompt_tokens=3), Timings(run_s=run_s)))

    def fail(self, id: int, error: ModelportError) -> None:
        self._end(id, FailedPart(error.to_wire()))

    def cancel(self, id: int) -> None:
        self.cancelled.append(id)
        if not self.executor.lingers:
            asyncio.get_running_loop().call_soon(self.let_go, id)

    def let_go(self, id: int) -> None:
        if id in self.open:
            self._end(id, FailedPart(Cancelled("cancelled").to_wire()))

    def die(self, why: str = "The worker was ended by SIGKILL.") -> None:
        cause = ModelFailed(why)
        unstarted = [number for number in self.open if number not in self.started]
        for number in [number for number in self.open if number in self.started]:
            self._end(number, FailedPart(cause.to_wire()))
        self.open.clear()
        self._idle.set()
        self._gone()
        self.events.died(cause, unstarted)

    async def drain(self) -> None:
        await self._idle.wait()

    async def stop(self) -> int:
        self.stops += 1
        if self.open:
            self.executor.cut_off.append(self.spec.name)
        if not self.is_running:
            return 0
        await asyncio.sleep(0)
        self._gone()
        return self.executor.measured

    def _gone(self) -> None:
        if self.is_running:
            self.is_running = False
            self.executor.running.remove(self)

    def _end(self, id: int, part: Any) -> None:
        _, receive = self.open.pop(id)
        if not self.open:
            self._idle.set()
        receive(part)


class FakeExecutor:
    """Attributes:
    gate: Loads wait for it.
    failures: Errors of the next loads, by backend.
    run_s: Seconds on the device, by model or backend.
    broken: What every call on a backend fails with.
    answers: Whether replicas answer calls by themselves.
    lingers: Whether a cancelled call stays on the device.
    measured: Bytes that each load says it took.
    cut_off: Models that were stopped while they had calls.
    """

    name = "process"

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.gate.set()
        self.failures: dict[str, list[Exception]] = {}
        self.run_s: dict[str, float] = {}
        self.broken: dict[str, ModelportError] = {}
        self.answers = True
        self.lingers = False
        self.measured = 0
        self.loads = 0
        self.cut_off: list[str] = []
        self.replicas: list[FakeReplica] = []
        self.running: list[FakeReplica] = []
        self.loading: list[FakeReplica] = []

    def replica(self, spec: ReplicaSpec, events: ReplicaEvents) -> FakeReplica:
        made = FakeReplica(spec, events, self)
        self.replicas.append(made)
        return made

    async def close(self) -> None:
        for replica in list(self.running):
            await replica.stop()


class Ledger:
    """Every event that was reported, in order."""

    def __init__(self) -> None:
        self.lines: list[tuple[Any, ...]] = []
        self.dropped = 0

    def __getattr__(self, name: str) -> Callable[..., None]:
        if name == "observer_dropped":
            return self._drop
        return lambda *args: self.lines.append((name, *args))

    def _drop(self) -> None:
        self.dropped += 1

    def of(self, name: str) -> list[tuple[Any, ...]]:
        return [line[1:] for line in self.lines if line[0] == name]


class World:
    def __init__(
        self, settings: Settings, registry: Registry, host: Host, executor: FakeExecutor, clock: FakeClock, ledger: Ledger
    ) -> None:
        self.settings, self.registry, self.host = settings, registry, host
        self.executor, self.clock, self.ledger = executor, clock, ledger
        self.anyone = anonymous()
        self.echo = EchoRequest

    def ask(self, model: str = "a", text: str = "hi", **more: Any) -> asyncio.Task[Any]:
        task = more.pop("task", "echo")
        principal = more.pop("principal", self.anyone)
        return asyncio.ensure_future(self.host.run(task, model, EchoRequest(text), principal, **more))

    def ask_stream(self, model: str = "a", text: str = "hi", **more: Any) -> asyncio.Task[Any]:
        return asyncio.ensure_future(self.host.stream("echo", model, EchoRequest(text), self.anyone, **more))

    async def settle(self) -> None:
        """Lets everything happen that can happen without the test's doing."""
        for _ in range(50):
            await asyncio.sleep(0)

    def state(self, model: str = "a") -> str:
        return self.host.model(self.anyone, model).state

    def replica(self, model: str = "a") -> FakeReplica:
        """The one running replica of a model."""
        (found,) = [replica for replica in self.executor.running if replica.spec.card.name == model]
        return found

    def deployment(self, model: str = "a") -> Any:
        (found,) = self.host._models[model].deployments.values()
        return found

    def caller(self, **fields: Any) -> Caller:
        return Caller(**{"name": "tester", "scopes": frozenset({"infer"}), **fields})


@pytest.fixture
async def world(tmp_path: Any) -> AsyncIterator[Callable[..., World]]:
    """Makes a world: `world({"a": {…}}, limits={…}, backends={"cpu": 100}, budget=…, need={"a": …})`."""
    made: list[World] = []

    async def make(
        models: dict[str, dict[str, Any]] | None = None,
        *,
        backends: dict[str, int] | None = None,
        need: dict[str, int] | int = 0,
        prepare: Callable[[Registry], None] | None = None,
        started: bool = True,
        emulated: bool = False,
        **settings: Any,
    ) -> World:
        tables = {name: {"source": "skill:echo", **table} for name, table in ({"a": {}} if models is None else models).items()}
        config = msgspec.convert({"state_dir": str(tmp_path), **settings, "models": tables}, Settings)
        registry = Registry()
        needs = (lambda name: need.get(name, 0)) if isinstance(need, dict) else (lambda name: need)
        for name, rank in (backends or {"cpu": 100}).items():
            registry.backends[name] = FakeBackend(name, rank, needs)
            registry.modules["backends", name] = f"backend_{name}"
        for skill in (EchoSkill(), PlainSkill()):
            registry.skills[skill.name] = skill
            registry.modules["skills", skill.name] = f"skill_{skill.name}"
            registry.tasks.update({task.name: task for task in skill.tasks})
        if prepare is not None:
            prepare(registry)
        hardware = Hardware(registry, config)
        for name in registry.backends:
            properties = {"emulated": emulated}
            device = Device(backend=name, name="fake", memory_total_bytes=2**40, memory_free_bytes=2**40, properties=properties)
            hardware.probes[name] = Probe(devices=(device,))
        executor, clock, ledger = FakeExecutor(), FakeClock(), Ledger()
        catalog = Catalog(config, registry)
        keyring = Keyring(tmp_path / "keys.json", config.auth.required)
        host = Host(config, registry, catalog, hardware, {"process": executor}, ledger, keyring=keyring, clock=clock)
        here = World(config, registry, host, executor, clock, ledger)
        here.catalog = catalog
        made.append(here)
        if started:
            await host.start()
        return here

    yield make
    for here in made:
        await here.host.stop(0)
        assert here.executor.running == [], "the server left replicas behind"
