"""What a session may do for one call."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor
from functools import partial
from typing import Any, Protocol, TypeVar

import msgspec

from modelport.contract.array import Array
from modelport.contract.errors import Cancelled, InvalidRequest, UnsupportedParameter
from modelport.contract.executor import ReplicaSpec
from modelport.contract.generate import GenerateEvent, GenerateRequest
from modelport.contract.program import Generate
from modelport.contract.reply import Timings, Usage
from modelport.contract.runner import Limits
from modelport.contract.session import Item
from modelport.core.worker.cache import OutputCache
from modelport.core.worker.generation import RunningGeneration
from modelport.core.worker.pace import Pace
from modelport.core.worker.scheduler import Scheduler

__all__ = ["CallRun", "Generations", "Machine"]

T = TypeVar("T")


class Generations(Protocol):
    """Who hands requests to engines and events back."""

    def has_room(self, choices: int) -> bool:
        """Whether so many more choices run at once with those that are open, rather than wait in the engine."""

    def start(self, entry: str, request: GenerateRequest, generation: RunningGeneration) -> None:
        """Queues `request`; `generation` gets its events."""

    def cancel_generation(self, id: int, index: int | None) -> None:
        """Ends a request or a choice of it."""

    def forget(self, id: int) -> None:
        """No more events are wanted."""

    def new_id(self) -> int:
        """An id that no other request of this worker has."""


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """What all calls of one worker share. A skill without a program has no scheduler and no engines.

    `announce` sends at once which calls have started: before the work that may kill the process, not after.
    """

    loop: Any
    pool: Executor
    cache: OutputCache
    spec: ReplicaSpec
    limits: Limits | None
    announce: Callable[[], None]
    entries: Any
    scheduler: Scheduler | None
    generations: Generations
    paces: defaultdict[str, Pace]


class CallRun:
    """A `Run`: everything it starts ends with it, is counted, and is timed. Lives on the event loop."""

    def __init__(
        self,
        machine: Machine,
        task: str,
        stream: bool,
        deadline: float | None,
        priority: int,
        on_started: Callable[[], None],
        size: int = 0,
    ) -> None:
        self.task, self.stream, self.deadline, self.priority = task, stream, deadline, priority
        self._size = size
        self._machine = machine
        self._on_started: Callable[[], None] | None = on_started
        self._prompt_tokens = self._completion_tokens = self._cached_tokens = 0
        self._queue_s = self._prepare_s = self._run_s = 0.0
        self._generations: dict[int, RunningGeneration] = {}
        self._is_open = True

    # ----------------------------------------------------------------------------------------------- for the session

    def forward(self, entry: str, item: Item, cache_key: str | None = None) -> Awaitable[dict[str, Array]]:
        """One item through `entry`; see `contract.session.Run`."""
        machine = self._usable()
        if machine.scheduler is None:
            raise TypeError("this skill has no program, so there is nothing to run forward")
        if cache_key is not None:
            kept = machine.cache.get(entry, cache_key)
            if kept is not None:
                done: asyncio.Future[dict[str, Array]] = machine.loop.create_future()
                done.set_result(kept)
                return done
        future = machine.scheduler.forward(entry, item, self)
        self._prompt_tokens += item.cost
        if cache_key is not None:
            future.add_done_callback(partial(self._keep, entry, cache_key))
        return future

    def generate(self, entry: str, request: GenerateRequest) -> RunningGeneration:
        """Starts `request`; see `contract.session.Run`."""
        machine = self._usable()
        if not isinstance(machine.entries.get(entry), Generate):
            raise TypeError(f"entry {entry!r} does not generate")
        assert machine.limits is not None
        if request.n < 1:
            raise InvalidRequest(f"n must be at least 1, not {request.n}", param="n")
        missing = sorted(request.needs() - machine.limits.params)
        if missing:
            raise UnsupportedParameter(_unsupported(machine.spec, missing), param=missing[0])
        number = machine.generations.new_id()
        request = msgspec.structs.replace(request, id=number, entry=entry, deadline=self.deadline, priority=self.priority)
        ids = request.inputs.get("input_ids")
        self._prompt_tokens += int(ids.shape[-1]) if ids is not None and ids.ndim else 0
        generation = RunningGeneration(
            request.n,
            partial(machine.generations.cancel_generation, number),
            self._count_event,
            partial(self._generation_over, number),
        )
        self._generations[number] = generation
        if machine.generations.has_room(request.n) and self.started():
            machine.announce()
        machine.generations.start(entry, request, generation)
        return generation

    def cpu(self, function: Callable[..., T], *args: Any) -> Awaitable[T]:
        """`function(*args)` on the CPU pool; see `contract.session.Run`. What is known to be short is done here and now."""
        machine = self._usable()
        if machine.scheduler is None and self.started():  # a skill without a program works here and nowhere else
            machine.announce()
        pace = machine.paces[getattr(function, "__qualname__", type(function).__qualname__)]
        future: asyncio.Future[T]
        if machine.scheduler is None or not self._size or not pace.is_short(self._size):
            future = machine.loop.run_in_executor(machine.pool, self._timed, function, args, pace)
            return future
        future = machine.loop.create_future()
        try:
            future.set_result(self._timed(function, args, pace))
        except Exception as error:
            future.set_exception(error)
        return future

    # ------------------------------------------------------------------------------------------------ for the worker

    def started(self) -> bool:
        """Something of this call goes to the device; whether it is the first."""
        if self._on_started is None:
            return False
        on_started, self._on_started = self._on_started, None
        on_started()
        return True

    def rode(self, queue_s: float, run_s: float) -> None:
        """A batch with items of this call is done."""
        self._queue_s += queue_s
        self._run_s += run_s

    def close(self) -> None:
        """Ends everything that this call started: items leave the queue, choices end within one step. Idempotent."""
        if not self._is_open:
            return
        self._is_open = False
        for generation in list(self._generations.values()):
            generation.fail(Cancelled("The request was cancelled."))
        if self._machine.scheduler is not None:
            self._machine.scheduler.withdraw(self)

    def usage(self) -> Usage:
        """Tokens counted so far."""
        return Usage(
            prompt_tokens=self._prompt_tokens, completion_tokens=self._completion_tokens, cached_tokens=self._cached_tokens
        )

    def timings(self, worker_s: float, first_delta_s: float) -> Timings:
        """Seconds spent so far."""
        return Timings(
            queue_s=self._queue_s,
            prepare_s=self._prepare_s,
            run_s=self._run_s,
            worker_s=worker_s,
            first_delta_s=first_delta_s,
        )

    def _usable(self) -> Machine:
        if not self._is_open:
            raise Cancelled("The request has ended; its session must not start anything more.")
        return self._machine

    def _timed(self, function: Callable[..., T], args: tuple[Any, ...], pace: Pace) -> T:
        began, worked = time.monotonic(), time.thread_time()
        try:
            return function(*args)
        finally:
            took_s = time.monotonic() - began
            self._prepare_s += took_s
            pace.learn(self._size, time.thread_time() - worked, took_s)

    def _keep(self, entry: str, key: str, future: asyncio.Future[dict[str, Array]]) -> None:
        if not future.cancelled() and future.exception() is None:
            self._machine.cache.put(entry, key, future.result())

    def _count_event(self, event: GenerateEvent) -> None:
        generation = self._generations.get(event.id)
        if self.started() and generation is not None:  # the engine had no room for it before
            now = time.monotonic()
            self._queue_s += now - generation.began
            generation.began = now
        self._completion_tokens += len(event.tokens)
        self._cached_tokens += event.cached_tokens

    def _generation_over(self, id: int, generation: RunningGeneration) -> None:
        self._generations.pop(id, None)
        self._run_s += time.monotonic() - generation.began
        self._machine.generations.forget(id)


def _unsupported(spec: ReplicaSpec, missing: Sequence[str]) -> str:
    able = [backend for backend, params in spec.params_elsewhere.items() if params.issuperset(missing)]
    advice = (
        f"The backend {able[0]!r} has it: set models.{spec.card.name}.require = {list(missing)} to have the model run there"
        if able
        else "No other enabled backend that runs the model has it"
    )
    names = " and ".join(missing)
    return f"{names} is not supported by the backend {spec.backend!r}, on which this model runs. Leave it out. {advice}."
