"""The worker: one deployment, loaded and at work, wherever its loop runs."""

from __future__ import annotations

import asyncio
import itertools
import os
import sys
import time
import traceback
from collections import defaultdict
from contextlib import aclosing
from typing import Any

from modelport.contract.backend import Progress
from modelport.contract.errors import Cancelled, DeadlineExceeded, InvalidRequest, ModelFailed, ModelportError, OutOfMemory
from modelport.contract.executor import (
    Call,
    DeltaPart,
    FailedPart,
    ReplicaReady,
    ReplicaSpec,
    ReplicaStats,
    ResultPart,
    StartedPart,
)
from modelport.contract.generate import GenerateEvent, GenerateRequest
from modelport.contract.task import Task
from modelport.core.worker import loading
from modelport.core.worker.cache import OutputCache
from modelport.core.worker.device import DeviceThread
from modelport.core.worker.generation import RunningGeneration
from modelport.core.worker.memory import resident_bytes, shared_out_bytes
from modelport.core.worker.outbox import Exit, Outbox
from modelport.core.worker.pace import Pace
from modelport.core.worker.pool import CpuPool
from modelport.core.worker.run import CallRun, Machine
from modelport.core.worker.scheduler import BatchFailed, Scheduler

__all__ = ["Worker"]

_CACHE_BYTES = 256 * 1024 * 1024
_DETAIL_CHARACTERS = 500


class _Open:
    """A call that has not ended."""

    __slots__ = ("arrived", "call", "deltas", "first_delta_s", "has_streamed", "run", "task", "timer")

    def __init__(self, call: Call, run: CallRun) -> None:
        self.call, self.run = call, run
        self.arrived = time.monotonic()
        self.first_delta_s = 0.0
        self.has_streamed = False
        self.deltas: list[Any] = []
        self.task: asyncio.Task[None] | None = None
        self.timer: asyncio.TimerHandle | None = None


class Worker:
    """Runs one deployment. Lives on one event loop; all methods are called there.

    Parts of calls leave through `exit`, those of one loop turn together. Every call ends in exactly one `ResultPart` or
    `FailedPart`, and whatever it started in queue, pool and engine ends with it.
    """

    def __init__(self, spec: ReplicaSpec, exit: Exit, lookup: loading.Lookup) -> None:
        self.spec = spec
        self.tasks: dict[str, Task[Any, Any, Any]] = {}
        self._loop = asyncio.get_running_loop()
        self._lookup = lookup
        self._outbox = Outbox(self._loop, exit, self.tasks)
        self._pool = CpuPool(max(1, spec.cpu_workers))
        self._device = DeviceThread(self._loop, self)
        self._cache = OutputCache(_CACHE_BYTES)
        self._deployment: loading.Deployment | None = None
        self._scheduler: Scheduler | None = None
        self._machine: Machine | None = None
        self._open: dict[int, _Open] = {}
        self._generations: dict[int, RunningGeneration] = {}
        self._ids = itertools.count(1)
        self._generated_tokens = 0
        self._finished_calls = 0
        self._is_closed = False

    async def load(self, progress: Progress) -> ReplicaReady:
        """Loads the deployment. `progress` is called on the event loop.

        Raises:
            ModelportError: the cause. Close the worker then.
        """
        before = shared_out_bytes()

        def tell(what: str, fraction: float) -> None:
            self._loop.call_soon_threadsafe(progress, what, fraction)

        try:
            deployment = await loading.load(self.spec, self._lookup, self._device, self._pool, tell)
        except Exception as error:
            if not isinstance(error, ModelportError):
                _log(f"loading {self.spec.name}", error)
            raise loading.as_load_error(self.spec, error) from error
        self._deployment = deployment
        self.tasks.update({task.name: task for task in deployment.skill.tasks if task.name in self.spec.tasks})
        program = self.spec.program
        if program is not None and deployment.limits is not None:
            self._scheduler = Scheduler(
                self._loop,
                self._device,
                self._pool,
                deployment.session,
                program,
                deployment.limits,
                deployment.dense,
                self._outbox.announce,
            )
        self._machine = Machine(
            loop=self._loop,
            pool=self._pool,
            cache=self._cache,
            spec=self.spec,
            limits=deployment.limits,
            announce=self._outbox.announce,
            entries=program.entries if program is not None else {},
            scheduler=self._scheduler,
            generations=self,
            paces=defaultdict(Pace),
        )
        return ReplicaReady(
            limits=deployment.limits,
            facts=deployment.facts,
            memory_bytes=int(deployment.facts.get("device_bytes", 0)) or max(0, shared_out_bytes() - before),
            load_s=deployment.load_s,
            pid=os.getpid(),
        )

    # --------------------------------------------------------------------------------------------------------- calls

    def call(self, call: Call) -> None:
        """Takes a call; its parts follow."""
        task = self.tasks.get(call.task)
        if task is None or self._machine is None or self._is_closed:
            serves = ", ".join(self.tasks) or "nothing: it is not loaded"
            error = InvalidRequest(f"this model does not serve the task {call.task!r}; it serves {serves}")
            self.refuse(call.id, error)
            return
        deadline = None if call.deadline_s is None else time.monotonic() + call.deadline_s

        def started() -> None:
            self._outbox.put(call.id, call.task, StartedPart())

        run = CallRun(self._machine, call.task, call.stream, deadline, call.priority, started, call.size)
        opened = self._open[call.id] = _Open(call, run)
        if call.deadline_s is not None:
            opened.timer = self._loop.call_later(max(0.0, call.deadline_s), self._expire, call.id)
        opened.task = self._loop.create_task(self._serve(opened, task))

    def cancel(self, id: int) -> None:
        """Ends a call at once; unknown ids are ignored."""
        opened = self._open.get(id)
        if opened is not None:
            self._abort(opened, Cancelled("The request was cancelled: its caller left or asked for it."))

    def refuse(self, id: int, error: ModelportError) -> None:
        """Ends a call that never began."""
        self._outbox.put(id, "", FailedPart(error.to_wire()))

    def stats(self) -> ReplicaStats:
        """Counters, and how things stand now."""
        scheduler, load = self._scheduler, self._device.engine_load
        if scheduler is None:
            return ReplicaStats(
                items=self._finished_calls,
                batches=self._finished_calls,
                running=len(self._open),
                resident_bytes=resident_bytes(),
                progress=self._finished_calls,
            )
        return ReplicaStats(
            items=scheduler.items,
            batches=scheduler.batches,
            batch_tokens=scheduler.batch_tokens,
            padded_tokens=scheduler.padded_tokens,
            generated_tokens=self._generated_tokens,
            steps=self._device.steps,
            running=scheduler.running + load.running,
            preparing=self._pool.jobs,
            waiting=scheduler.waiting + max(load.waiting, len(self._generations) - load.running),
            cache_used=load.cache_used,
            cache_total=load.cache_total,
            device_busy_s=self._device.busy_s,
            resident_bytes=resident_bytes(),
            progress=self._device.progress,
            prepared=self._pool.finished,
        )

    async def close(self) -> None:
        """Cancels what is open and frees everything. Idempotent."""
        if self._is_closed:
            return
        self._is_closed = True
        tasks = [opened.task for opened in self._open.values() if opened.task is not None]
        for opened in list(self._open.values()):
            self._abort(opened, Cancelled("The model is being unloaded."))
        self._outbox.flush()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._cache.clear()
        if self._deployment is not None:
            try:
                await self._loop.run_in_executor(self._pool, self._deployment.session.close)
            except Exception as error:
                _log("closing the session", error)
        try:
            await self._device.close()
        except Exception as error:
            _log("closing the runner", error)
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _serve(self, opened: _Open, task: Task[Any, Any, Any]) -> None:
        assert self._deployment is not None
        result = None
        try:
            async with aclosing(self._deployment.session.handle(opened.call.request, opened.run)) as pieces:
                async for piece in pieces:
                    if isinstance(piece, task.result):
                        result = piece
                    elif task.delta is not None and isinstance(piece, task.delta):
                        self._delta(opened, piece)
                    else:
                        raise TypeError(
                            f"the skill yielded a {type(piece).__name__}, which the task {task.name!r} does not declare"
                        )
            if opened.deltas and task.join is not None:
                result = task.join(opened.deltas)
            if result is None and not opened.has_streamed:
                raise TypeError("the skill yielded nothing")
        except asyncio.CancelledError:
            self._end(opened, FailedPart(Cancelled("The request was cancelled.").to_wire()))
        except BaseException as error:
            self._end(opened, FailedPart(self._as_model_error(error).to_wire()))
            if not isinstance(error, Exception):
                raise
        else:
            part = ResultPart(None if opened.has_streamed else result, opened.run.usage(), self._timings(opened))
            self._end(opened, part)

    def _delta(self, opened: _Open, delta: Any) -> None:
        if not opened.call.stream:
            opened.deltas.append(delta)
            return
        if not opened.has_streamed:
            opened.has_streamed = True
            opened.first_delta_s = time.monotonic() - opened.arrived
        if opened.call.id in self._open:
            self._outbox.put(opened.call.id, opened.call.task, DeltaPart(delta))

    def _timings(self, opened: _Open) -> Any:
        return opened.run.timings(time.monotonic() - opened.arrived, opened.first_delta_s)

    def _expire(self, id: int) -> None:
        opened = self._open.get(id)
        if opened is not None:
            self._abort(opened, DeadlineExceeded(f"The request was not done within its {opened.call.deadline_s:g} seconds."))

    def _abort(self, opened: _Open, error: ModelportError) -> None:
        """Ends a call before its session does. The caller learns at once; the session's own end follows, unheard."""
        self._end(opened, FailedPart(error.to_wire()))
        if opened.task is not None:
            opened.task.cancel()

    def _end(self, opened: _Open, part: ResultPart | FailedPart) -> None:
        opened.run.close()
        if self._open.pop(opened.call.id, None) is None:
            return
        self._finished_calls += 1
        if opened.timer is not None:
            opened.timer.cancel()
        self._outbox.put(opened.call.id, opened.call.task, part)

    def _as_model_error(self, error: BaseException) -> ModelportError:
        if isinstance(error, BatchFailed):
            error = error.error
        if isinstance(error, ModelportError):
            return error
        if isinstance(error, MemoryError):
            return OutOfMemory(
                f"The device ran out of memory over this request ({error or 'no more is known'}). Ask for less at once, or "
                "lower the model's max_length or max_items."
            )
        _log(f"answering a request of {self.spec.name}", error)
        detail = " ".join(str(error).split())[:_DETAIL_CHARACTERS]
        return ModelFailed(f"The model's code raised {type(error).__name__}{': ' + detail if detail else ''}")

    # --------------------------------------------------------------------------------------------------- generations

    def new_id(self) -> int:
        """An id that no other request of this worker has."""
        return next(self._ids)

    def has_room(self, choices: int) -> bool:
        """Whether so many more choices run at once with those that are open, rather than wait in the engine."""
        assert self._deployment is not None
        assert self._deployment.limits is not None
        return choices + sum(other.choices for other in self._generations.values()) <= self._deployment.limits.max_items

    def start(self, entry: str, request: GenerateRequest, generation: RunningGeneration) -> None:
        """Queues `request`; `generation` gets its events."""
        self._generations[request.id] = generation
        self._device.add(entry, request)

    def forget(self, id: int) -> None:
        """No more events of `id` are wanted."""
        self._generations.pop(id, None)

    def cancel_generation(self, id: int, index: int | None) -> None:
        """Ends a request, or a choice of it, before the next step."""
        self._device.cancel(id, index)

    def engine_events(self, events: list[GenerateEvent]) -> None:
        """Everything that one step did."""
        for event in events:
            self._generated_tokens += len(event.tokens)
            generation = self._generations.get(event.id)
            if generation is not None:
                generation.push(event)
        self._outbox.gather()

    def engine_failed(self, ids: list[int], error: Exception) -> None:
        """These requests are over."""
        for number in ids:
            generation = self._generations.get(number)
            if generation is not None:
                generation.fail(error if len(ids) == 1 else BatchFailed(error))


def _log(what: str, error: BaseException) -> None:
    """The traceback goes to the worker's own output, and never to a caller."""
    print(f"modelport worker: {what} failed", file=sys.stderr)
    traceback.print_exception(error)
