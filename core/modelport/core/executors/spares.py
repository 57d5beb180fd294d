"""Spare workers: processes that have imported the heavy libraries, and touched no device, before their model is known."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence

import psutil
import structlog

from modelport.contract.errors import ModelportError
from modelport.contract.executor import ReplicaSpec
from modelport.core.executors.child_process import ChildProcess
from modelport.core.executors.environment import worker_environment
from modelport.core.worker import protocol
from modelport.core.worker.frames import pack
from modelport.core.worker.loading import Lookup

__all__ = ["Spares"]

_log = structlog.get_logger("modelport.worker")
_LEAST_FREE_BYTES = 2 * 1024**3
_CALM_S = 2.0
_GRACE_S = 2.0

Kind = tuple[str, str, tuple[tuple[str, str], ...]]
"""Interpreter, backend and environment: what a process cannot change any more."""


class Spares:
    """Keeps up to `most` spare workers, each like the one whose load it follows.

    Args:
        most: How many; 0 keeps none.
        lookup: Gives a plugin of the server's, which says what to import.
        calm_s: Seconds after a load until a spare is started, so that the first requests come first.
        free_bytes: The host's free memory; below 2 GiB no spare is started.
    """

    def __init__(
        self,
        most: int,
        lookup: Lookup,
        *,
        calm_s: float = _CALM_S,
        free_bytes: Callable[[], int] = lambda: int(psutil.virtual_memory().available),
    ) -> None:
        self._most = most
        self._lookup = lookup
        self._calm_s = calm_s
        self._free_bytes = free_bytes
        self._ready: list[tuple[Kind, ChildProcess]] = []
        self._ending: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._is_closed = False

    @property
    def pids(self) -> list[int]:
        """Those that wait."""
        return [child.pid for _, child in self._ready]

    def take(self, spec: ReplicaSpec) -> ChildProcess | None:
        """A spare that can become the worker of `spec`. One of another kind has been kept in vain, and is ended."""
        kind = _kind(spec)
        for index, (other, child) in enumerate(self._ready):
            if other == kind and child.is_running:
                del self._ready[index]
                return child
        while self._ready:
            self._end(self._ready.pop(0)[1])
        return None

    def follow(self, spec: ReplicaSpec) -> None:
        """`spec` has been loaded: a spare like it will be started, if there is room for one."""
        if self._timer is None and len(self._ready) < self._most and not self._is_closed:
            self._timer = asyncio.get_running_loop().call_later(self._calm_s, self._start, spec)

    async def close(self) -> None:
        """Ends all."""
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()
        while self._ready:
            self._end(self._ready.pop()[1])
        await asyncio.gather(*self._ending)

    def _start(self, spec: ReplicaSpec) -> None:
        self._timer = None
        free = self._free_bytes()
        if free < _LEAST_FREE_BYTES:
            _log.debug("no spare worker: memory is short", free_bytes=free)
            return
        environment = worker_environment(os.environ, spec.environment)
        greeting = pack([protocol.encode(protocol.Prepare(self._modules(spec)))]).data

        def ended() -> None:
            self._ready = [entry for entry in self._ready if entry[1] is not child]
            child.socket.close()  # which its owner would have done, had it ever had one

        try:
            child = ChildProcess(spec.interpreter, "spare", environment, lambda line: None, ended)
        except ModelportError as error:
            _log.warning("a spare worker could not be started", reason=error.message)
            return
        self._ready.append((_kind(spec), child))
        # It fits into the socket at once: nobody reads the answers before the process has become somebody's worker.
        try:
            child.socket.sendall(greeting)
        except OSError as error:  # it has ended already
            _log.warning("a spare worker could not be started", reason=str(error))
            self._ready.pop()
            self._end(child)
            return
        _log.debug("spare worker started", backend=spec.backend, pid=child.pid)

    def _modules(self, spec: ReplicaSpec) -> list[str]:
        if spec.interpreter:  # its plugins are not those of this process
            return []
        wanted: Sequence[str] = self._lookup("skills", spec.skill, spec.skill_module).preload
        if spec.backend:
            wanted = [*wanted, *self._lookup("backends", spec.backend, spec.backend_module).preload]
        return list(dict.fromkeys(wanted))

    def _end(self, child: ChildProcess) -> None:
        child.kill()
        task = asyncio.ensure_future(child.end(_GRACE_S))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)


def _kind(spec: ReplicaSpec) -> Kind:
    return spec.interpreter, spec.backend, tuple(sorted(spec.environment.items()))
