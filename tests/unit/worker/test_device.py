"""The device thread and the worker around it: turns, cancellation, counting."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import Future
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from modelport.contract.errors import Cancelled, ModelFailed, error_from_wire
from modelport.contract.executor import Call, DeltaPart, FailedPart, ReplicaSpec, ResultPart, StartedPart
from modelport.contract.generate import EngineLoad, GenerateEvent, GenerateRequest
from modelport.contract.runner import Limits
from modelport.core.worker.device import DeviceThread
from modelport.core.worker.service import Worker
from modelport.tasks.text import GenerationRequest
from modelport.testing import fake_skills
from modelport.testing.backend import card_of
from modelport.testing.fake_chat import Chat
from modelport.testing.fake_network import write_tiny_network
from modelport.testing.fakes import BucketBackend, NumpyBackend

Log = list[str]


async def turns(condition: Callable[[], Any]) -> None:
    """Lets the loop turn until something holds that no event tells of."""
    async with asyncio.timeout(10):
        for _ in itertools.count():
            if condition():
                return
            await asyncio.sleep(0)


class ScriptedEngine:
    """Steps as often as it is told, and writes down what happens on the device thread."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self.aboard: dict[int, int] = {}
        self.fails = False
        self.begins: Callable[[], None] = lambda: None

    def add(self, request: GenerateRequest) -> None:
        self.log.append(f"add {request.id}")
        self.aboard[request.id] = request.params.max_new_tokens or 1

    def cancel(self, id: int, index: int | None = None) -> None:
        self.log.append(f"cancel {id}")
        self.aboard.pop(id, None)

    def step(self) -> list[GenerateEvent]:
        self.log.append("step")
        self.begins()
        if self.fails:
            raise RuntimeError("the engine broke")
        events = []
        for request in list(self.aboard):
            self.aboard[request] -= 1
            finish = "length" if not self.aboard[request] else None
            events.append(GenerateEvent(id=request, tokens=(1,), finish=finish))
            if finish:
                del self.aboard[request]
        return events

    def load(self) -> EngineLoad:
        return EngineLoad(running=len(self.aboard), waiting=0)


class ScriptedRunner:
    def __init__(self, log: Log, in_flight: int = 1, *, holds_gil: bool = False) -> None:
        self.log = log
        self.limits = Limits(in_flight=in_flight, holds_gil=holds_gil)
        self.facts: dict[str, str] = {}
        self.only_engine = ScriptedEngine(log)
        self.futures: list[Future[Any]] = []
        self.is_held = False
        self.threads: set[str] = set()

    def submit(self, entry: str, batch: Any) -> Future[Any]:
        self.threads.add(threading.current_thread().name)
        self.log.append(f"batch {entry}")
        future: Future[Any] = Future()
        self.futures.append(future)
        if not self.is_held:
            future.set_result({})
        return future

    def engine(self, entry: str) -> ScriptedEngine:
        return self.only_engine

    def close(self) -> None:
        self.log.append("close")


class Job:
    def __init__(self, entry: str, ended: asyncio.Event, loop: asyncio.AbstractEventLoop) -> None:
        self.entry, self.ended, self.loop = entry, ended, loop

    def arrays(self) -> dict[str, Any]:
        return {}

    def started(self) -> None: ...

    def finished(self, future: Future[Any]) -> None:
        self.loop.call_soon_threadsafe(self.ended.set)


class Listener:
    def __init__(self) -> None:
        self.events: list[list[GenerateEvent]] = []
        self.failures: list[tuple[list[int], Exception]] = []
        self.changed = asyncio.Event()

    def engine_events(self, events: list[GenerateEvent]) -> None:
        self.events.append(events)
        self.changed.set()

    def engine_failed(self, ids: list[int], error: Exception) -> None:
        self.failures.append((ids, error))
        self.changed.set()

    async def until(self, condition: Any) -> None:
        async with asyncio.timeout(10):
            while not condition():
                self.changed.clear()
                await self.changed.wait()


@pytest.fixture
async def device() -> AsyncIterator[tuple[DeviceThread, ScriptedRunner, Listener, Log]]:
    log: Log = []
    listener, runner = Listener(), ScriptedRunner(log)
    thread = DeviceThread(asyncio.get_running_loop(), listener)
    thread.use(runner)
    yield thread, runner, listener, log
    await thread.close()


def wanted(number: int, tokens: int) -> GenerateRequest:
    from modelport.contract.generate import Sampling

    return GenerateRequest(id=number, inputs={"input_ids": np.array([1])}, params=Sampling(max_new_tokens=tokens))


@asynccontextmanager
async def held(thread: DeviceThread) -> AsyncIterator[None]:
    """The device thread does nothing else meanwhile."""
    entered, gate = threading.Event(), threading.Event()

    def wait() -> None:
        entered.set()
        assert gate.wait(10)

    waiting = asyncio.ensure_future(thread.call(wait))
    assert await asyncio.to_thread(entered.wait, 10)
    yield
    gate.set()
    await waiting


async def test_batches_and_steps_take_turns(device: Any) -> None:
    thread, _, listener, log = device
    loop, ended = asyncio.get_running_loop(), [asyncio.Event() for _ in range(3)]
    async with held(thread):
        thread.add("main", wanted(1, 5))
        for index, event in enumerate(ended):
            thread.submit(Job(f"b{index}", event, loop))
    for event in ended:
        await asyncio.wait_for(event.wait(), 10)
    await listener.until(lambda: len(listener.events) == 5)
    assert [entry for entry in log if entry != "add 1"][:6] == ["batch b0", "step", "batch b1", "step", "batch b2", "step"]


async def test_no_more_batches_are_open_than_the_runner_allows(device: Any) -> None:
    thread, runner, _, log = device
    runner.is_held = True
    loop, first, second = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()
    thread.submit(Job("one", first, loop))
    thread.submit(Job("two", second, loop))
    await thread.call(int)
    await thread.call(int)
    assert log == ["batch one"]
    runner.futures[0].set_result({})
    await asyncio.wait_for(first.wait(), 10)
    await thread.call(int)
    await thread.call(int)
    assert log == ["batch one", "batch two"]
    runner.futures[1].set_result({})
    await asyncio.wait_for(second.wait(), 10)


async def test_the_runner_is_called_on_one_thread_only(device: Any) -> None:
    thread, runner, _, _ = device
    loop = asyncio.get_running_loop()
    for _ in range(5):
        ended = asyncio.Event()
        thread.submit(Job("one", ended, loop))
        await asyncio.wait_for(ended.wait(), 10)
    assert runner.threads == {"modelport-device"}


async def test_all_events_of_a_step_arrive_together(device: Any) -> None:
    thread, _, listener, _ = device
    async with held(thread):
        for number in range(1, 6):
            thread.add("main", wanted(number, 2))
    await listener.until(lambda: len(listener.events) == 2)
    assert [[event.id for event in events] for events in listener.events] == [[1, 2, 3, 4, 5]] * 2


async def test_what_a_step_brought_is_sent_before_another_one_that_keeps_all_threads_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("modelport.core.worker.device._DELIVERY_S", 10.0)
    listener, runner = Listener(), ScriptedRunner([], holds_gil=True)
    thread = DeviceThread(asyncio.get_running_loop(), listener)
    thread.use(runner)  # type: ignore[arg-type]
    sent: list[int] = []
    told = listener.engine_events

    def tell(events: list[GenerateEvent]) -> None:
        told(events)
        asyncio.get_running_loop().call_soon(sent.append, len(listener.events))  # as an outbox does

    listener.engine_events = tell  # type: ignore[method-assign]
    sent_before_steps: list[int] = []
    runner.only_engine.begins = lambda: sent_before_steps.append(len(sent))
    thread.add("main", wanted(1, 5))
    await listener.until(lambda: len(listener.events) == 5)
    assert sent_before_steps == [0, 1, 2, 3, 4]
    await thread.close()


async def test_an_engine_that_raises_fails_what_is_aboard_and_goes_on(device: Any) -> None:
    thread, runner, listener, _ = device
    runner.only_engine.fails = True
    thread.add("main", wanted(1, 5))
    await listener.until(lambda: listener.failures)
    ids, error = listener.failures[0]
    assert ids == [1]
    assert str(error) == "the engine broke"
    runner.only_engine.fails = False
    thread.add("main", wanted(2, 1))
    await listener.until(lambda: listener.events)
    assert listener.events == [[GenerateEvent(id=2, tokens=(1,), finish="length")]]


async def test_closing_ends_the_thread_and_closes_the_runner() -> None:
    log: Log = []
    thread = DeviceThread(asyncio.get_running_loop(), Listener(), name="short-lived")
    thread.use(ScriptedRunner(log))  # type: ignore[arg-type]
    await thread.close()
    await thread.close()
    assert log == ["close"]
    for other in threading.enumerate():
        if other.name == "modelport-short-lived":
            await asyncio.to_thread(other.join, 10)
            assert not other.is_alive()


# ------------------------------------------------------------------------------------------------------- a whole worker


class Exit:
    """Keeps what leaves a worker."""

    def __init__(self) -> None:
        self.is_congested = False
        self.frames: list[list[tuple[int, Any]]] = []
        self.clear: Any = None
        self.changed = asyncio.Event()

    def when_clear(self, callback: Any) -> None:
        self.clear = callback

    def deliver(self, parts: list[tuple[int, Any]]) -> None:
        self.frames.append(parts)
        self.changed.set()

    def parts(self, number: int) -> list[Any]:
        return [part for frame in self.frames for call, part in frame if call == number]

    async def end(self, number: int) -> Any:
        async with asyncio.timeout(10):
            while True:
                for part in self.parts(number):
                    if isinstance(part, ResultPart | FailedPart):
                        return part
                self.changed.clear()
                await self.changed.wait()


class Bench:
    """A worker under test, with the skill and the backend given."""

    def __init__(self, tmp_path: Path) -> None:
        self.exit = Exit()
        self.tmp_path = tmp_path
        self.worker: Worker = None  # type: ignore[assignment]

    async def load(
        self, skill: Any, backend: Any, elsewhere: Mapping[str, frozenset[str]] | None = None, **config: Any
    ) -> Worker:
        card = msgspec.structs.replace(card_of(write_tiny_network(self.tmp_path / "main", **config)), name="tiny")
        program = skill.programs(card)[skill.tasks[0].name]
        spec = ReplicaSpec(
            name="tiny",
            card=card,
            skill=skill.name,
            skill_module="",
            tasks=(skill.tasks[0].name,),
            backend=backend.name,
            program=program,
            params_elsewhere=dict(elsewhere or {}),
        )
        self.worker = Worker(spec, self.exit, lambda kind, name, module: skill if kind == "skills" else backend)
        await self.worker.load(lambda what, fraction: None)
        return self.worker


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    if bench.worker is not None:
        await bench.worker.close()


class Gated(NumpyBackend):
    """Its device stops before every batch until it is let go."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.entered = threading.Semaphore(0)
        self.sizes: list[int] = []

    def load(self, context: Any, progress: Any) -> Any:
        runner: Any = super().load(context, progress)
        run = runner._run

        def gated(entry: str, batch: Any) -> Any:
            self.entered.release()
            self.gate.wait(10)
            self.sizes.append(len(next(iter(batch.values()))))
            return run(entry, batch)

        runner._run = gated
        return runner


def pair(number: int) -> fake_skills.PairsRequest:
    return fake_skills.PairsRequest([number + 1], [[2]])


async def test_what_comes_while_the_device_is_busy_shares_the_next_batch(bench: Bench) -> None:
    backend = Gated()
    worker = await bench.load(fake_skills.Pairs(), backend)
    worker.call(Call(id=1, task="fake-pairs", request=pair(1)))
    await asyncio.to_thread(backend.entered.acquire)
    for number in range(2, 12):
        worker.call(Call(id=number, task="fake-pairs", request=pair(number)))
    await turns(lambda: worker.stats().waiting >= 10)
    backend.gate.set()
    for number in range(1, 12):
        assert isinstance(await bench.exit.end(number), ResultPart)
    assert backend.sizes == [1, 10]
    stats = worker.stats()
    assert (stats.items, stats.batches, stats.batch_tokens, stats.running, stats.waiting) == (11, 2, 22, 0, 0)


async def test_where_the_backend_says_so_the_next_batch_waits_for_callers_who_ask_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modelport.core.worker.patience._MOST_S", 30.0)

    class Lingering(Gated):
        limits = msgspec.structs.replace(Gated.limits, linger=1e9)

    backend = Lingering()
    worker = await bench.load(fake_skills.Pairs(), backend)
    worker.call(Call(id=1, task="fake-pairs", request=pair(1)))
    await asyncio.to_thread(backend.entered.acquire)
    worker.call(Call(id=2, task="fake-pairs", request=pair(2)))
    await turns(lambda: worker.stats().waiting >= 1)
    backend.gate.set()
    await bench.exit.end(1)
    worker.call(Call(id=3, task="fake-pairs", request=pair(3)))
    for number in (2, 3):
        assert isinstance(await bench.exit.end(number), ResultPart)
    assert backend.sizes == [1, 2]


async def test_a_cancelled_call_leaves_the_queue_and_never_reaches_the_device(bench: Bench) -> None:
    backend = Gated()
    worker = await bench.load(fake_skills.Pairs(), backend)
    worker.call(Call(id=1, task="fake-pairs", request=pair(1)))
    await asyncio.to_thread(backend.entered.acquire)
    worker.call(Call(id=2, task="fake-pairs", request=pair(2)))
    await turns(lambda: worker.stats().waiting >= 1)
    worker.cancel(2)
    assert worker.stats().waiting == 0
    end = await bench.exit.end(2)
    assert isinstance(error_from_wire(end.error), Cancelled)
    assert not any(isinstance(part, StartedPart) for part in bench.exit.parts(2))
    backend.gate.set()
    assert isinstance(await bench.exit.end(1), ResultPart)
    assert backend.sizes == [1]


async def test_an_item_aboard_is_counted_until_its_batch_ends(bench: Bench) -> None:
    backend = Gated()
    worker = await bench.load(fake_skills.Pairs(), backend)
    worker.call(Call(id=1, task="fake-pairs", request=pair(1)))
    await asyncio.to_thread(backend.entered.acquire)
    worker.cancel(1)
    await bench.exit.end(1)
    assert worker.stats().running == 1
    backend.gate.set()
    await turns(lambda: not (worker.stats().running))


async def test_a_batch_that_fails_fails_its_items_each_with_a_sentence(bench: Bench) -> None:
    class Broken(NumpyBackend):
        def load(self, context: Any, progress: Any) -> Any:
            runner: Any = super().load(context, progress)

            def fail(entry: str, batch: Any) -> Any:
                raise RuntimeError("device lost")

            runner._run = fail
            return runner

    worker = await bench.load(fake_skills.Pairs(), Broken())
    for number in (1, 2):
        worker.call(Call(id=number, task="fake-pairs", request=pair(number)))
    for number in (1, 2):
        error = error_from_wire((await bench.exit.end(number)).error)
        assert isinstance(error, ModelFailed)
        assert error.message == "The model's code raised RuntimeError: device lost"


async def test_usage_and_timings_are_those_of_the_call(bench: Bench) -> None:
    worker = await bench.load(fake_skills.Pairs(), NumpyBackend())
    worker.call(Call(id=1, task="fake-pairs", request=fake_skills.PairsRequest([1, 2], [[3], [4, 5]])))
    end = await bench.exit.end(1)
    assert end.usage.prompt_tokens == 3 + 4
    assert 0 < end.timings.run_s <= end.timings.worker_s
    assert 0 < end.timings.prepare_s <= end.timings.worker_s


async def test_what_a_session_prepares_on_the_pool_is_reported_though_the_device_is_idle(bench: Bench) -> None:
    prepare = threading.Event()

    class Slow(fake_skills.PairsSession):
        def preprocess(self, request: fake_skills.PairsRequest) -> Any:
            prepare.wait(10)
            return super().preprocess(request)

    class Pairs(fake_skills.Pairs):
        session_type = Slow

    worker = await bench.load(Pairs(), NumpyBackend())
    worker.call(Call(id=1, task="fake-pairs", request=pair(1)))
    await turns(lambda: worker.stats().preparing == 1)
    before = worker.stats()
    assert (before.running, before.waiting) == (0, 0)
    prepare.set()
    await bench.exit.end(1)
    await turns(lambda: worker.stats().preparing == 0)
    assert worker.stats().prepared > before.prepared


@pytest.mark.parametrize(
    ("elsewhere", "advice"),
    [
        ({}, "No other enabled backend that runs the model has it."),
        (
            {"few": frozenset({"seed"}), "numpy": frozenset({"logit_bias", "seed"})},
            "The backend 'numpy' has it: set models.tiny.require = ['logit_bias'] to have the model run there.",
        ),
    ],
)
async def test_a_parameter_that_the_engine_lacks_is_refused_with_a_backend_that_has_it(
    bench: Bench, elsewhere: dict[str, frozenset[str]], advice: str
) -> None:
    worker = await bench.load(Chat(), BucketBackend(), elsewhere=elsewhere, pieces=["</s>", "a"])
    worker.call(Call(id=1, task="text-generation", request=GenerationRequest(prompt="a", logit_bias={1: 2.0})))
    error = (await bench.exit.end(1)).error
    assert (error.kind, error.param) == ("unsupported", "logit_bias")
    assert error.message == (
        f"logit_bias is not supported by the backend 'fake-bucket', on which this model runs. Leave it out. {advice}"
    )


async def test_a_cancelled_generation_frees_its_place_within_one_step(bench: Bench) -> None:
    log: Log = []
    runner = ScriptedRunner(log)
    runner.limits = Limits(params=NumpyBackend.limits.params)
    stepping, may_step = threading.Semaphore(0), threading.Semaphore(0)
    step = runner.only_engine.step

    def gated() -> list[GenerateEvent]:
        stepping.release()
        may_step.acquire(timeout=10)
        return step()

    runner.only_engine.step = gated  # type: ignore[method-assign]

    class Scripted(NumpyBackend):
        def load(self, context: Any, progress: Any) -> Any:
            return runner

    worker = await bench.load(Chat(), Scripted(), pieces=["</s>", "a"])
    worker.call(Call(id=1, task="text-generation", request=GenerationRequest(prompt="a", max_new_tokens=1000), stream=True))
    await asyncio.to_thread(stepping.acquire)
    worker.cancel(1)
    may_step.release()
    await bench.exit.end(1)
    await turns(lambda: "cancel 1" in log and not (worker.stats().running or worker.stats().waiting))
    assert log.count("step") == 1


async def test_deltas_wait_merged_while_the_server_is_behind(bench: Bench) -> None:
    worker = await bench.load(Chat(), NumpyBackend(), pieces=["</s>", "a", "b"], chain={1: [2], 2: [1]})
    bench.exit.is_congested = True
    worker.call(Call(id=1, task="text-generation", request=GenerationRequest(prompt="a", max_new_tokens=60), stream=True))
    await turns(lambda: bench.exit.clear is not None and worker.stats().steps >= 60)
    assert bench.exit.frames == []
    await turns(lambda: not (worker.stats().running or worker.stats().waiting))
    bench.exit.is_congested = False
    bench.exit.clear()
    await bench.exit.end(1)
    deltas = [part.delta for part in bench.exit.parts(1) if isinstance(part, DeltaPart)]
    assert len(deltas) <= 64
    assert "".join(delta.text for delta in deltas) == "ba" * 30


class WhereSession(fake_skills.PairsSession):
    """Writes down which thread prepares; one of its requests is slow."""

    threads: list[str] = []

    def preprocess(self, request: Any) -> Any:
        self.threads.append(threading.current_thread().name)
        return super().preprocess(request)


class Where(fake_skills.Pairs):
    session_type = WhereSession


async def test_what_is_known_to_be_short_is_prepared_without_a_thread_and_the_rest_on_the_pool(bench: Bench) -> None:
    worker = await bench.load(Where(), NumpyBackend())
    WhereSession.threads.clear()
    request = fake_skills.PairsRequest([1], [[2]])
    for number, size in enumerate([*[64] * 50, 64_000_000, 0], 1):
        worker.call(Call(id=number, task="fake-pairs", request=request, size=size))
        assert isinstance(await bench.exit.end(number), ResultPart)
    assert all(name.startswith("modelport-cpu") for name in WhereSession.threads[:8]), "it has to be seen before"
    assert WhereSession.threads[49] == threading.current_thread().name
    assert all(name.startswith("modelport-cpu") for name in WhereSession.threads[50:]), "large, or of unknown size"


async def test_what_a_short_function_raises_is_its_callers(bench: Bench) -> None:
    worker = await bench.load(Where(), NumpyBackend())
    for number in range(1, 51):
        worker.call(Call(id=number, task="fake-pairs", request=fake_skills.PairsRequest([1], []), size=64))
        failure = await bench.exit.end(number)
        assert isinstance(failure, FailedPart)
        assert failure.error.param == "labels"
