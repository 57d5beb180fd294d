"""An executor in this process: for the `Engine`, for one-shot runs, for tests, and for skills without a program."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Any, ClassVar, Literal

from modelport.contract.errors import Cancelled, ConfigurationError, ModelFailed, ModelportError, Unavailable
from modelport.contract.executor import (
    Call,
    FailedPart,
    Part,
    ReplicaEvents,
    ReplicaReady,
    ReplicaSpec,
)
from modelport.core.executors.open_calls import OpenCalls, unloaded
from modelport.core.worker.loading import Lookup, find_plugin
from modelport.core.worker.memory import resident_bytes
from modelport.core.worker.service import Worker

__all__ = ["ThreadExecutor", "ThreadReplica"]

_CLOSE_S = 30.0


class ThreadReplica:
    """One worker on a thread with an event loop of its own. See `contract.executor.Replica`."""

    def __init__(self, spec: ReplicaSpec, events: ReplicaEvents, lookup: Lookup) -> None:
        self._spec, self._events, self._lookup = spec, events, lookup
        self._owner: asyncio.AbstractEventLoop | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._worker: Worker | None = None
        self._thread: threading.Thread | None = None
        self._ready: asyncio.Future[ReplicaReady] | None = None
        self._ended: asyncio.Event = asyncio.Event()
        self._leave: asyncio.Event | None = None
        self._open = OpenCalls()
        self._is_stopping = False
        self._is_loaded = False
        self._stopped: asyncio.Future[int] | None = None

    @property
    def is_over(self) -> bool:
        """Whether its thread is done."""
        return self._ended.is_set()

    async def start(self) -> ReplicaReady:
        """Loads; see the contract."""
        self._owner = asyncio.get_running_loop()
        self._ready = self._owner.create_future()
        self._thread = threading.Thread(target=self._main, name=f"modelport-{self._spec.name}", daemon=True)
        self._thread.start()
        try:
            ready = await self._ready
        except BaseException:
            self._is_stopping = True
            await self._end()
            raise
        self._is_loaded = True
        return ready

    def call(self, call: Call, receive: Callable[[Part], None]) -> None:
        """Hands a call over; see the contract."""
        assert self._owner is not None
        if self._is_stopping or self._loop is None or self._worker is None:
            error = Unavailable(f"The model {self._spec.name!r} is not running.")
            self._owner.call_soon(receive, FailedPart(error.to_wire()))
            return
        self._open.add(call.id, receive)
        self._loop.call_soon_threadsafe(self._worker.call, call)

    def cancel(self, id: int) -> None:
        """Ends a call; its caller learns at once."""
        if id not in self._open or self._owner is None:
            return
        if self._loop is not None and self._worker is not None:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._worker.cancel, id)
        error = Cancelled("The request was cancelled: its caller left or asked for it.")
        self._owner.call_soon(self._open.give, id, FailedPart(error.to_wire()))

    async def drain(self) -> None:
        """Returns when no call is open."""
        await self._open.none()

    async def stop(self) -> int:
        """Closes the worker and ends its thread; a thread stuck in C is left behind, since nothing can end it."""
        if self._stopped is None:
            self._stopped = asyncio.ensure_future(self._stop())
        return await asyncio.shield(self._stopped)

    # ---------------------------------------------------------------------------------- the way out of the worker's loop

    @property
    def is_congested(self) -> bool:
        """Never: parts are handed over as objects, and the receiver bounds what it keeps."""
        return False

    def when_clear(self, callback: Callable[[], None]) -> None:
        """Calls `callback`: see `is_congested`."""
        callback()

    def deliver(self, parts: list[tuple[int, Part]]) -> None:
        """Hands parts to the owner's loop."""
        self._tell(self._give, parts)

    # ------------------------------------------------------------------------------------------------- on its own thread

    def _main(self) -> None:
        try:
            asyncio.run(self._live())
        except BaseException as error:
            self._tell(self._crashed, error)
        finally:
            self._tell(self._ended.set)

    async def _live(self) -> None:
        self._leave = asyncio.Event()
        worker = Worker(self._spec, self, self._lookup)
        try:
            try:
                ready = await worker.load(lambda what, fraction: self._tell(self._progress, what, fraction))
            except ModelportError as error:
                self._tell(self._settle, error)
                return
            self._worker, self._loop = worker, asyncio.get_running_loop()
            self._tell(self._settle, ready)
            while not self._leave.is_set() and not self._is_stopping:  # it may have been given up while it loaded
                self._tell(self._events_stats, worker.stats())
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._leave.wait(), self._spec.heartbeat_s)
        finally:
            await worker.close()

    # ----------------------------------------------------------------------------------------------- on the owner's loop

    def _tell(self, function: Callable[..., Any], *args: Any) -> None:
        assert self._owner is not None
        with contextlib.suppress(RuntimeError):  # the owner's loop is closed
            self._owner.call_soon_threadsafe(function, *args)

    def _progress(self, what: str, fraction: float) -> None:
        self._events.progress(what, fraction)

    def _events_stats(self, stats: Any) -> None:
        if not self._is_stopping:
            self._events.stats(stats)

    def _settle(self, outcome: ReplicaReady | ModelportError) -> None:
        if self._ready is None or self._ready.done():
            return
        if isinstance(outcome, ModelportError):
            self._ready.set_exception(outcome)
        else:
            self._ready.set_result(outcome)

    def _give(self, parts: list[tuple[int, Part]]) -> None:
        for call_id, part in parts:
            self._open.give(call_id, part)

    def _crashed(self, error: BaseException) -> None:
        cause = ModelFailed(f"The worker of {self._spec.name!r} ended: {type(error).__name__}: {error}")
        if self._ready is not None and not self._ready.done():
            self._ready.set_exception(cause)
            return
        unstarted = self._open.bury(cause)
        if self._is_loaded and not self._is_stopping:
            self._events.died(cause, unstarted)

    async def _stop(self) -> int:
        self._is_stopping = True
        self._open.fail(unloaded(self._spec.name))
        before = resident_bytes()
        await self._end()
        return max(0, before - resident_bytes())

    async def _end(self) -> None:
        if self._thread is None:
            return
        if self._loop is not None and self._leave is not None:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._leave.set)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._ended.wait(), _CLOSE_S)


class ThreadExecutor:
    """Runs replicas on threads of this process.

    Args:
        lookup: Gives plugin objects; by default their modules are imported.
        in_server: Whether this process serves: then a backend that imports torch is refused.
    """

    name: ClassVar[str] = "thread"

    def __init__(self, lookup: Lookup = find_plugin, *, in_server: bool = False) -> None:
        self._find = lookup
        self._in_server = in_server
        self._replicas: list[ThreadReplica] = []

    def replica(self, spec: ReplicaSpec, events: ReplicaEvents) -> ThreadReplica:
        """A replica, not started yet.

        Raises:
            ConfigurationError: if its backend may not run in this process.
        """
        replica = ThreadReplica(spec, events, self._lookup)
        self._replicas = [known for known in self._replicas if not known.is_over] + [replica]
        return replica

    async def close(self) -> None:
        """Stops whatever still runs."""
        replicas, self._replicas = self._replicas, []
        await asyncio.gather(*(replica.stop() for replica in replicas))

    def _lookup(self, kind: Literal["backends", "skills"], name: str, module: str) -> Any:
        plugin = self._find(kind, name, module)
        if kind == "backends" and self._in_server and plugin.imports_torch:
            raise ConfigurationError(
                f"Backend {name!r} imports torch, which the server's own process does not. Remove isolation = 'thread' from the "
                "model's configuration, so that it gets a worker process."
            )
        return plugin
