"""A worker in a process of its own, at the other end of the server's socket."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import signal
import socket
import sys
from collections.abc import Callable

from modelport.contract.errors import ConfigurationError, ModelportError, Unavailable
from modelport.contract.executor import FailedPart, Part, ReplicaSpec
from modelport.core.worker import protocol
from modelport.core.worker.channel import Channel
from modelport.core.worker.garbage import settle
from modelport.core.worker.loading import Lookup
from modelport.core.worker.service import Worker
from modelport.core.worker.versions import plugin_versions

__all__ = ["Child"]

_LINGER_S = 5.0


class Child:
    """Speaks the protocol over one socket, and runs the worker that it asks for. Ends when the socket does."""

    def __init__(self, sock: socket.socket, lookup: Lookup) -> None:
        self._loop = asyncio.get_running_loop()
        self._lookup = lookup
        self._worker: Worker | None = None
        self._hello: protocol.Hello | None = None
        self._is_loaded = False
        self._leaving: asyncio.Task[None] | None = None
        self._loading: asyncio.Task[None] | None = None
        self._preparing: asyncio.Future[None] | None = None
        self._heartbeat_s = 1.0
        self._ended = asyncio.Event()
        self._channel = Channel(sock, self._received, self._lost)

    async def run(self) -> None:
        """Returns when the worker should exit."""
        with contextlib.suppress(NotImplementedError):  # loops on Windows have no signal handlers
            self._loop.add_signal_handler(signal.SIGTERM, self._leave)
            self._loop.add_signal_handler(signal.SIGINT, lambda: None)
        self._channel.send([protocol.encode(protocol.hello())])
        await self._ended.wait()

    # -------------------------------------------------------------------------------------- the way out of the worker

    @property
    def is_congested(self) -> bool:
        """Whether the server is behind with reading."""
        return self._channel.is_congested

    def when_clear(self, callback: Callable[[], None]) -> None:
        """Calls `callback` once, when the server has caught up."""
        self._channel.when_clear(callback)

    def deliver(self, parts: list[tuple[int, Part]]) -> None:
        """Sends parts as one frame."""
        self._channel.send(protocol.encode_parts(parts), {call_id for call_id, _ in parts})

    # -------------------------------------------------------------------------------------------------------- the way in

    def _received(self, parts: list[memoryview]) -> None:
        message = protocol.decode(parts[0])
        match message:
            case protocol.Asked():
                self._asked(message, parts[1:])
            case protocol.Cancel(ids):
                for call_id in ids:
                    if self._worker is not None:
                        self._worker.cancel(call_id)
            case protocol.Hello():
                self._hello = message
            case protocol.Prepare(modules):
                self._preparing = self._loop.run_in_executor(None, _import_all, modules)
            case protocol.Load(spec):
                self._loading = self._loop.create_task(self._load(spec))
            case protocol.Leave():
                self._leave()
            case _:
                raise ValueError(f"a server does not send {type(message).__name__}")

    def _asked(self, asked: protocol.Asked, buffers: list[memoryview]) -> None:
        if self._worker is None:
            error = Unavailable("The model is not loaded yet.")
            self.deliver([(asked.id, FailedPart(error.to_wire()))])
            return
        try:
            call = protocol.decode_call(asked, buffers, self._worker.tasks)
        except ModelportError as error:
            self._worker.refuse(asked.id, error)
        else:
            self._worker.call(call)

    async def _load(self, spec: ReplicaSpec) -> None:
        try:
            if self._hello is None:
                raise ConfigurationError("The server asked for a load before it said which version it is.")
            mine = protocol.hello(plugin_versions(self._hello.plugins))
            protocol.check_hello(mine, self._hello, "the server")
            if self._preparing is not None:
                self._progress("importing libraries", 0.0)
                await self._preparing
            self._worker = Worker(spec, self, self._lookup)
            loaded = protocol.encode(protocol.Loaded(await self._worker.load(self._progress)))
        except Exception as error:
            failure = error if isinstance(error, ModelportError) else ModelportError(f"{type(error).__name__}: {error}")
            self._channel.send([protocol.encode(protocol.LoadFailed(failure.to_wire()))])
            self._leave()
            return
        settle()
        self._heartbeat_s = spec.heartbeat_s
        self._channel.send([loaded])
        self._beat()

    def _progress(self, what: str, fraction: float) -> None:
        if not self._channel.is_congested:
            self._channel.send([protocol.encode(protocol.Loading(what, fraction))])

    def _beat(self) -> None:
        if self._worker is None or self._leaving is not None:
            return
        if not self._channel.is_congested:
            self._channel.send([protocol.encode(protocol.Heartbeat(self._worker.stats()))])
        self._loop.call_later(self._heartbeat_s, self._beat)

    def _leave(self) -> None:
        if self._leaving is None:
            self._leaving = self._loop.create_task(self._close())

    async def _close(self) -> None:
        if self._worker is not None:
            await self._worker.close()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._channel.flush(), _LINGER_S)
        self._channel.close()
        self._ended.set()

    def _lost(self, reason: str) -> None:
        """The server is gone. Nothing is worth closing politely, and a stuck device must not keep the process."""
        print(f"modelport worker: leaving, {reason}", file=sys.stderr)
        sys.stderr.flush()
        os._exit(0)


def _import_all(modules: list[str]) -> None:
    """What cannot be imported is said by the load that needs it."""
    for name in modules:
        with contextlib.suppress(Exception):
            importlib.import_module(name)
