"""The device thread: the only caller of a runner and its engines."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from functools import partial
from typing import Any, Protocol, TypeVar

from modelport.contract.array import Array
from modelport.contract.errors import Cancelled
from modelport.contract.generate import Engine, EngineLoad, GenerateEvent, GenerateRequest
from modelport.contract.runner import Runner

__all__ = ["DeviceThread", "EngineListener", "Job"]

T = TypeVar("T")
_EMPTY_STEP_PAUSE_S = 0.001
_DELIVERY_S = 0.01
_STACK_BYTES = 256 << 20
"""Address space, not memory: compilers recurse as deep as a caller's text refers, and a full stack ends the process."""


class Job(Protocol):
    """A batch for the device. All three are called on the device thread, or on a thread of the runner's."""

    @property
    def entry(self) -> str: ...

    def arrays(self) -> Mapping[str, Array]:
        """The batch, collated; may raise."""

    def started(self) -> None:
        """The device begins now."""

    def finished(self, future: Future[dict[str, Array]]) -> None:
        """The device is done with it. Must be quick and must not raise."""


class EngineListener(Protocol):
    """Who is told of engines, on the event loop."""

    def engine_events(self, events: list[GenerateEvent]) -> None:
        """Everything that one step did."""

    def engine_failed(self, ids: list[int], error: Exception) -> None:
        """These requests are over: they were refused, or their engine raised."""


class DeviceThread:
    """Runs batches and engine steps in turn on one thread, and anything else that must run there.

    While there is work of both kinds it alternates between one batch and one step, so neither starves the other. At most
    `in_flight` batches are open in the runner. `progress` grows with everything that the device completes: a thread that is
    busy and whose counter stands still is stuck.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, listener: EngineListener, name: str = "device") -> None:
        self.progress = 0
        self.steps = 0
        self.busy_s = 0.0
        self.engine_load = EngineLoad(running=0, waiting=0)
        self._loop = loop
        self._listener = listener
        self._commands: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._jobs: deque[Job] = deque()
        self._open_jobs = 0
        self._in_flight = 1
        self._holds_gil = False
        self._runner: Runner | None = None
        self._engines: dict[str, Engine] = {}
        self._aboard: dict[int, tuple[str, set[int]]] = {}
        self._stepping: deque[str] = deque()
        self._is_closing = False
        self._thread = threading.Thread(target=self._main, name=f"modelport-{name}", daemon=True)
        usual = threading.stack_size(_STACK_BYTES)
        try:
            self._thread.start()
        finally:
            threading.stack_size(usual)

    # ------------------------------------------------------------------------------------------- from the event loop

    async def call(self, function: Callable[..., T], *args: Any) -> T:
        """`function(*args)` on the device thread."""
        future: Future[T] = Future()
        self._commands.put(partial(self._call, future, function, args))
        return await asyncio.wrap_future(future, loop=self._loop)

    def use(self, runner: Runner) -> None:
        """Takes the runner that later jobs and requests are for."""
        self._runner = runner
        self._in_flight = max(1, runner.limits.in_flight)
        self._holds_gil = runner.limits.holds_gil

    def submit(self, job: Job) -> None:
        """Queues a batch. May be called from any thread."""
        self._commands.put(partial(self._jobs.append, job))

    def add(self, entry: str, request: GenerateRequest) -> None:
        """Queues a generation."""
        self._commands.put(partial(self._add, entry, request))

    def cancel(self, id: int, index: int | None = None) -> None:
        """Ends a generation, or one choice of it, before the next step."""
        self._commands.put(partial(self._cancel, id, index))

    async def close(self) -> None:
        """Closes the runner and ends the thread. Idempotent."""
        if self._is_closing:
            return
        try:
            await self.call(self._close_runner)
        finally:
            self._is_closing = True
            self._commands.put(lambda: None)

    # ------------------------------------------------------------------------------------------- on the device thread

    def _main(self) -> None:
        while not self._is_closing:
            self._take_commands(wait=not self._stepping and not self._may_start())
            if self._may_start():
                self._start(self._jobs.popleft())
            if self._stepping:
                self._step(self._stepping.popleft())

    def _may_start(self) -> bool:
        return bool(self._jobs) and self._open_jobs < self._in_flight

    def _take_commands(self, *, wait: bool, timeout_s: float | None = None) -> None:
        with contextlib.suppress(queue.Empty):
            if wait:
                self._commands.get(timeout=timeout_s)()
            while True:
                self._commands.get_nowait()()

    def _call(self, future: Future[T], function: Callable[..., T], args: tuple[Any, ...]) -> None:
        if not future.set_running_or_notify_cancel():
            return
        try:
            future.set_result(function(*args))
        except BaseException as error:
            future.set_exception(error)
        self.progress += 1

    def _start(self, job: Job) -> None:
        self._open_jobs += 1
        began = time.monotonic()
        try:
            assert self._runner is not None
            batch = job.arrays()
            job.started()
            future = self._runner.submit(job.entry, batch)
        except BaseException as error:
            future = Future()
            future.set_exception(error)
        self.progress += 1
        future.add_done_callback(partial(self._finished, job, began))

    def _finished(self, job: Job, began: float, future: Future[dict[str, Array]]) -> None:
        self.busy_s += time.monotonic() - began
        self.progress += 1
        job.finished(future)
        self._commands.put(self._one_job_less)

    def _one_job_less(self) -> None:
        self._open_jobs -= 1

    def _add(self, entry: str, request: GenerateRequest) -> None:
        try:
            assert self._runner is not None
            engine = self._engines.get(entry)
            if engine is None:
                engine = self._engines[entry] = self._runner.engine(entry)
            engine.add(request)
        except Exception as error:
            self._tell(self._listener.engine_failed, [request.id], error)
            return
        self._aboard[request.id] = entry, set(range(request.n))
        if entry not in self._stepping:
            self._stepping.append(entry)

    def _cancel(self, id: int, index: int | None) -> None:
        if id not in self._aboard:
            return
        entry = self._aboard[id][0]
        self._choice_over(id, index)
        try:
            self._engines[entry].cancel(id, index)
            load = self.engine_load = self._engines[entry].load()
            if not load.running and not load.waiting and entry in self._stepping:
                self._stepping.remove(entry)
        except Exception as error:
            self._give_up(entry, error)

    def _choice_over(self, id: int, index: int | None) -> None:
        """Forgets a request once none of its choices is open."""
        _, choices = self._aboard.get(id, ("", set()))
        if index is None:
            choices.clear()
        choices.discard(index or 0)
        if not choices:
            self._aboard.pop(id, None)

    def _step(self, entry: str) -> None:
        engine = self._engines[entry]
        began = time.monotonic()
        try:
            events = engine.step()
            load = engine.load()
        except Exception as error:
            self._give_up(entry, error)
            return
        took = time.monotonic() - began
        self.busy_s += took
        self.progress += 1
        self.steps += 1
        self.engine_load = load
        if load.running or load.waiting:
            self._stepping.append(entry)
            if not events and took < _EMPTY_STEP_PAUSE_S and len(self._stepping) == 1 and not self._may_start():
                # An engine that waits for something (another device, a compiler) must not spin a core away.
                self._take_commands(wait=True, timeout_s=_EMPTY_STEP_PAUSE_S)
        if events:
            for event in events:
                if event.finish is not None:
                    self._choice_over(event.id, event.index)
            self._tell(self._listener.engine_events, events)
            if self._holds_gil:
                self._let_deliver()

    def _give_up(self, entry: str, error: Exception) -> None:
        """Fails everything aboard an engine that raised. The engine itself is kept: the next request shows whether it works."""
        ids = [request for request, (name, _) in self._aboard.items() if name == entry]
        for request in ids:
            del self._aboard[request]
            with contextlib.suppress(Exception):
                self._engines[entry].cancel(request)
        self.engine_load = EngineLoad(running=0, waiting=0)
        with contextlib.suppress(Exception):
            self.engine_load = self._engines[entry].load()
        self.progress += 1
        self._tell(self._listener.engine_failed, ids, error)

    def _close_runner(self) -> None:
        self._stepping.clear()
        self._engines.clear()
        for job in self._jobs:
            future: Future[dict[str, Array]] = Future()
            future.set_exception(Cancelled("The model is being unloaded."))
            job.finished(future)
        self._jobs.clear()
        if self._runner is not None:
            runner, self._runner = self._runner, None
            runner.close()

    def _let_deliver(self) -> None:
        """Waits until the loop has had the turns in which what it was just told leaves the process."""
        delivered = threading.Event()
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._loop.call_soon, delivered.set)
            delivered.wait(_DELIVERY_S)

    def _tell(self, function: Callable[..., None], *args: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to be told
            self._loop.call_soon_threadsafe(function, *args)
