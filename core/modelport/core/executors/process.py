"""The default executor: every replica in a process of its own."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import structlog

from modelport.contract.errors import Cancelled, ModelFailed, ModelportError, Unavailable, error_from_wire
from modelport.contract.executor import (
    Call,
    FailedPart,
    Part,
    ReplicaEvents,
    ReplicaReady,
    ReplicaSpec,
)
from modelport.contract.task import Task
from modelport.core.executors.child_process import ChildProcess
from modelport.core.executors.environment import worker_environment
from modelport.core.executors.open_calls import OpenCalls, unloaded
from modelport.core.executors.spares import Spares
from modelport.core.executors.watchdog import Watchdog
from modelport.core.worker import protocol
from modelport.core.worker.channel import Channel
from modelport.core.worker.loading import Lookup, find_plugin
from modelport.core.worker.memory import shared_out_bytes
from modelport.core.worker.versions import plugin_versions

__all__ = ["ProcessExecutor", "ProcessReplica"]

_GRACE_S = 5.0
_LOST_S = 1.0


class ProcessReplica:
    """One worker process. See `contract.executor.Replica`; `tasks` are those of the spec's skill."""

    def __init__(
        self,
        spec: ReplicaSpec,
        events: ReplicaEvents,
        tasks: Callable[[], Mapping[str, Task[Any, Any, Any]]],
        spares: Spares,
        loaded: Callable[[ReplicaSpec], None],
    ) -> None:
        self._spec, self._events, self._find_tasks = spec, events, tasks
        self._spares, self._tell_loaded = spares, loaded
        self._tasks: Mapping[str, Task[Any, Any, Any]] = {}
        self._log = structlog.get_logger("modelport.worker").bind(model=spec.name)
        self._open = OpenCalls()
        self._child: ChildProcess | None = None
        self._channel: Channel | None = None
        self._watchdog: Watchdog | None = None
        self._watch_timer: asyncio.TimerHandle | None = None
        self._ready: asyncio.Future[ReplicaReady] | None = None
        self._fault = ""
        self._death: ModelportError | None = None
        self._is_loaded = self._is_stopping = self._is_over = False
        self._stopped: asyncio.Future[int] | None = None

    @property
    def is_over(self) -> bool:
        """Whether its process is gone."""
        return self._is_over

    async def start(self) -> ReplicaReady:
        """Starts the process and loads; see the contract."""
        loop = asyncio.get_running_loop()
        self._tasks = self._find_tasks()
        self._ready = loop.create_future()
        self._child = self._spares.take(self._spec)
        if self._child is None:
            environment = worker_environment(os.environ, self._spec.environment)
            self._child = ChildProcess(self._spec.interpreter, self._spec.name, environment, self._printed, self._process_ended)
        else:
            self._child.adopt(self._printed, self._process_ended)
        self._channel = Channel(self._child.socket, self._received, self._lost)
        self._watchdog = Watchdog(self._spec, time.monotonic())
        self._channel.send([protocol.encode(self._hello())])
        self._channel.send([protocol.encode(protocol.Load(self._spec))])
        self._watch()
        try:
            ready = await self._ready
        except BaseException:
            self._is_stopping = True
            await self._end(0.0)
            raise
        if self._death is not None:
            raise self._death
        self._is_loaded = True
        self._tell_loaded(self._spec)
        return ready

    def call(self, call: Call, receive: Callable[[Part], None]) -> None:
        """Sends a call; see the contract."""
        task = self._tasks.get(call.task)
        failure: ModelportError | None = None
        if task is None or self._channel is None or not self._channel.is_open or self._is_stopping:
            failure = Unavailable(f"The model {self._spec.name!r} is not running.")
        else:
            try:
                frame = protocol.ask(call)
            except ModelportError as error:
                failure = error
            else:
                self._open.add(call.id, receive, task)
                self._channel.send(frame, (call.id,), at_once=False)
        if failure is not None:
            asyncio.get_running_loop().call_soon(receive, FailedPart(failure.to_wire()))

    def cancel(self, id: int) -> None:
        """Ends a call; its caller learns at once, whatever the worker is doing."""
        if id not in self._open or self._channel is None:
            return
        self._channel.send([protocol.encode(protocol.Cancel([id]))], (id,))
        error = Cancelled("The request was cancelled: its caller left or asked for it.")
        asyncio.get_running_loop().call_soon(self._open.give, id, FailedPart(error.to_wire()))

    def kill(self) -> None:
        """Ends the process at once, without a word."""
        self._is_stopping = True
        if self._child is not None:
            self._child.kill()

    async def drain(self) -> None:
        """Returns when no call is open."""
        await self._open.none()

    async def stop(self) -> int:
        """Ends the process; see the contract."""
        if self._stopped is None:
            self._stopped = asyncio.ensure_future(self._stop())
        return await asyncio.shield(self._stopped)

    # ------------------------------------------------------------------------------------------------ from the worker

    def _received(self, parts: list[memoryview]) -> None:
        now = time.monotonic()
        assert self._watchdog is not None
        message = protocol.decode(parts[0])
        match message:
            case protocol.Parts():
                for call_id, part in protocol.decode_parts(message, parts[1:], self._open.task):
                    self._open.give(call_id, part)
            case protocol.Heartbeat(stats):
                self._watchdog.heartbeat(stats, now)
                if not self._is_over:
                    self._events.stats(stats)
            case protocol.Loading(what, fraction):
                self._watchdog.loading(what, now)
                self._events.progress(what, fraction)
            case protocol.Loaded(ready):
                self._watchdog.loaded(now)
                self._settle(ready)
            case protocol.LoadFailed(error):
                self._settle(error_from_wire(error))
            case protocol.Hello():
                self._check_versions(message)
            case _:
                raise ValueError(f"a worker does not send {type(message).__name__}")

    def _hello(self) -> protocol.Hello:
        if not self._spec.interpreter:
            return protocol.hello()  # the same interpreter has the same plugins
        names = [f"skills/{self._spec.skill}"] + ([f"backends/{self._spec.backend}"] if self._spec.backend else [])
        return protocol.hello(plugin_versions(names))

    def _check_versions(self, theirs: protocol.Hello) -> None:
        try:
            protocol.check_hello(protocol.hello(), theirs, "the worker")
        except ModelportError as error:
            self._settle(error)

    def _printed(self, line: str) -> None:
        self._log.debug("worker output", line=line)

    def _settle(self, outcome: ReplicaReady | ModelportError) -> None:
        if self._ready is None or self._ready.done():
            return
        if isinstance(outcome, ModelportError):
            self._ready.set_exception(outcome)
        else:
            self._ready.set_result(outcome)

    # ---------------------------------------------------------------------------------------------------------- its end

    def _watch(self) -> None:
        if self._is_over or self._child is None or self._watchdog is None:
            return
        fault = self._watchdog.fault(time.monotonic(), len(self._open))
        if fault and not self._is_stopping:
            self._fault = fault
            self._child.kill()
            return
        limits = [limit / 4 for limit in (self._spec.stuck_s, self._spec.load_stall_s) if limit]
        interval = min(self._spec.heartbeat_s, *limits)
        self._watch_timer = asyncio.get_running_loop().call_later(max(interval, 0.01), self._watch)

    def _lost(self, reason: str) -> None:
        """The socket broke. The process has ended, or is of no more use."""
        if self._child is not None and self._child.is_running and not self._is_stopping:
            asyncio.get_running_loop().call_later(_LOST_S, self._kill_mute, reason)

    def _kill_mute(self, reason: str) -> None:
        """A process that lives on without its socket."""
        if self._child is not None and self._child.is_running:
            self._fault = self._fault or f"its connection failed: {reason}"
            self._child.kill()

    def _process_ended(self) -> None:
        assert self._child is not None
        if self._channel is not None:
            self._channel.read_rest()  # answers that were sent before the end still count
            self._channel.close()
        if self._watch_timer is not None:
            self._watch_timer.cancel()
        if self._is_over:
            return
        self._is_over = True
        cause = self._death = self._cause(self._child)
        if self._ready is not None and not self._ready.done():
            self._ready.set_exception(cause)
            return
        if self._is_stopping:
            self._open.fail(unloaded(self._spec.name))
            return
        failure = ModelFailed(f"The process of model {self._spec.name!r} ended while it worked on this request. Send it again.")
        count = len(self._open)
        unstarted = self._open.bury(failure)
        self._log.error("worker died", cause=cause.message, unstarted=len(unstarted), started=count - len(unstarted))
        if self._is_loaded:
            self._events.died(cause, unstarted)

    def _cause(self, child: ChildProcess) -> ModelportError:
        name = self._spec.name
        if self._fault:
            cause = ModelFailed(f"The worker of {name!r} was ended because {self._fault}.")
        else:
            cause = ModelFailed(f"The worker of {name!r} {child.how_it_ended()}.")
        tail = child.output.tail()
        if tail:
            # A library may print a prompt: the lines are for the operator's log, and only a failed load names the last one.
            (self._log.debug if self._is_stopping else self._log.warning)("last lines of the worker", lines=tail)
            cause.add_note("\n".join(tail))
            if not self._is_loaded:
                cause = ModelFailed(f"{cause.message} Its last line was: {tail[-1]}")
                cause.add_note("\n".join(tail))
        return cause

    async def _stop(self) -> int:
        self._is_stopping = True
        child = self._child
        if child is None or not child.is_running:
            self._is_over = True
            return 0
        self._open.fail(unloaded(self._spec.name))
        held = await asyncio.get_running_loop().run_in_executor(None, shared_out_bytes, child.pid)
        await self._end(_GRACE_S)
        return held

    async def _end(self, grace_s: float) -> None:
        if self._child is None:
            return
        if self._channel is not None and grace_s:
            self._channel.send([protocol.encode(protocol.Leave())])
        if grace_s:
            await self._child.end(grace_s)
        else:
            self._child.kill()
            await self._child.end(_GRACE_S)


class ProcessExecutor:
    """Runs replicas in child processes.

    Args:
        lookup: Gives the skill of a spec, for its tasks' Structs; the server's own plugins.
        spare: How many spare workers to keep.
        most: How many replicas there can be; once all are there no spare is started. None: no bound.
        spares: The spare workers, for tests.
    """

    name: ClassVar[str] = "process"

    def __init__(
        self, lookup: Lookup = find_plugin, *, spare: int = 0, most: int | None = None, spares: Spares | None = None
    ) -> None:
        self._lookup = lookup
        self._most = most
        self._spares = spares or Spares(spare, lookup)
        self._replicas: list[ProcessReplica] = []

    def replica(self, spec: ReplicaSpec, events: ReplicaEvents) -> ProcessReplica:
        """A replica, not started yet."""

        def tasks() -> Mapping[str, Task[Any, Any, Any]]:
            skill = self._lookup("skills", spec.skill, spec.skill_module)
            return {task.name: task for task in skill.tasks}

        replica = ProcessReplica(spec, events, tasks, self._spares, self._loaded)
        self._replicas = [known for known in self._replicas if not known.is_over] + [replica]
        return replica

    def kill(self) -> None:
        """Ends every worker at once: for an operator who asks a second time."""
        for replica in self._replicas:
            replica.kill()

    async def close(self) -> None:
        """Stops whatever still runs."""
        replicas, self._replicas = self._replicas, []
        await asyncio.gather(self._spares.close(), *(replica.stop() for replica in replicas))

    def _loaded(self, spec: ReplicaSpec) -> None:
        if self._most is None or sum(not replica.is_over for replica in self._replicas) < self._most:
            self._spares.follow(spec)
