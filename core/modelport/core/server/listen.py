"""The socket: bound before anything else, announced when it listens, drained before it closes.

uvicorn speaks HTTP; binding and signals are ours, so that a busy port is one sentence, `--port 0` is known to whoever started us,
and a drain is told apart from a kill.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import signal
import socket
import ssl
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import structlog
import uvicorn

from modelport.contract.errors import ConfigurationError
from modelport.core.config.settings import ServerSettings
from modelport.core.server.asgi import Application
from modelport.core.server.http import BoundedProtocol

__all__ = ["Listener", "bind", "url_of"]

_log = structlog.get_logger("modelport.server")
_EXIT_KILLED = 130


def bind(server: ServerSettings, keys_in_force: bool) -> socket.socket:
    """A bound socket, not yet listening.

    Raises:
        ConfigurationError: the address is public and no key guards it, the port is taken or needs rights, or there is no such
            address; the message says what to do.
    """
    family, address = _resolved(server)
    if not keys_in_force and not server.insecure and not ipaddress.ip_address(address[0].partition("%")[0]).is_loopback:
        raise ConfigurationError(
            f"{server.host} can be reached from other machines, and no key is set: anybody could use this server. Make a key with"
            f" `modelport keys create`, bind 127.0.0.1, or accept the risk with --insecure."
        )
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        if os.name != "nt":  # there it would let two servers share the port
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        bound.bind(address)
        bound.setblocking(False)
    except OSError as error:
        bound.close()
        raise ConfigurationError(_why_not(error, server)) from None
    return bound


def _resolved(server: ServerSettings) -> tuple[socket.AddressFamily, Any]:
    try:
        found = socket.getaddrinfo(server.host.strip("[]"), server.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError):
        raise ConfigurationError(
            f"server.host: {server.host!r} is not an address of this machine. Use 127.0.0.1 for this machine only,"
            f" 0.0.0.0 for all of its addresses."
        ) from None
    family, _, _, _, address = min(found, key=lambda entry: entry[0] != socket.AF_INET)
    return family, address


def _why_not(error: OSError, server: ServerSettings) -> str:
    where = f"{server.host} port {server.port}"
    if error.errno in {98, 48, 10048}:
        return f"{where} is in use by another program. Choose another with --port, or --port 0 for any free one."
    if error.errno in {13, 1, 10013}:
        return f"{where} may not be bound by this user: ports below 1024 need rights. Choose a higher one with --port."
    return f"{where} cannot be bound: {error.strerror or error}. Check --host and --port."


def url_of(bound: socket.socket, secure: bool) -> str:
    """The address to type, with the port that was picked."""
    host, port = bound.getsockname()[:2]
    return f"{'https' if secure else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"


class Listener:
    """Serves an application on a bound socket until it is told to stop.

    Args:
        app: The application.
        bound: From `bind`.
        server: Its settings.
        startup: Called once the socket listens; health is answered while it runs. If it raises, the server stops and `serve`
            raises the same.
        shutdown: Called at the end, beside the drain of connections: lets requests finish within `drain_s`, stops the models.
        on_drain: Called as the drain begins: from then on /health/ready should say so.
        announce: Gets the line `modelport serving on URL`.
        kill: Ends the process at once; called for a second signal.

    Raises:
        ConfigurationError: the certificate or its key cannot be used.
    """

    def __init__(
        self,
        app: Application,
        bound: socket.socket,
        server: ServerSettings,
        *,
        startup: Callable[[], Awaitable[None]],
        shutdown: Callable[[], Awaitable[None]],
        on_drain: Callable[[], None],
        announce: Callable[[str], None] = partial(print, flush=True),
        kill: Callable[[], None] = lambda: os._exit(_EXIT_KILLED),
    ) -> None:
        self._bound = bound
        self._startup = startup
        self._shutdown = shutdown
        self._on_drain = on_drain
        self._announce = announce
        self._kill = kill
        self._stopping = asyncio.Event()
        self._why = ""
        self.url = url_of(bound, server.tls_cert is not None)
        config = uvicorn.Config(
            app,
            http="auto" if sys.platform == "win32" else BoundedProtocol,
            ws="auto" if app.has_websockets else "none",
            loop="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=max(1, round(server.keep_alive_s)),
            # Past the drain, so that the host ends what still runs with an error in its dialect, and not the socket.
            timeout_graceful_shutdown=round(server.drain_s) + 5,
            ssl_certfile=server.tls_cert,
            ssl_keyfile=server.tls_key,
        )
        _load(config, server)
        self._uvicorn = _Uvicorn(config)

    async def serve(self) -> None:
        """Listens, starts, serves, drains, stops."""
        with self._signals():
            await self._uvicorn.open(self._bound)
            starting = asyncio.ensure_future(self._startup())
            starting.add_done_callback(self._started)
            self._announce(f"modelport serving on {self.url}")
            ticking = asyncio.create_task(self._uvicorn.main_loop())
            await self._stopping.wait()
            self._on_drain()
            _log.info("draining", why=self._why, connections=len(self._uvicorn.server_state.connections))
            self._uvicorn.should_exit = True
            if not starting.done():
                starting.cancel()
            startup_failure = (await asyncio.gather(starting, return_exceptions=True))[0]
            await ticking
            ended = await asyncio.gather(self._shutdown(), self._uvicorn.shutdown(sockets=[self._bound]), return_exceptions=True)
        for failure in (startup_failure, *ended):
            if isinstance(failure, Exception):
                raise failure

    def stop(self, why: str = "asked to") -> None:
        """Begins the drain. Must be called on the event loop."""
        self._why = why
        self._stopping.set()

    def _started(self, starting: asyncio.Future[None]) -> None:
        if not starting.cancelled() and starting.exception():
            self.stop("the start failed")

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """The first SIGINT or SIGTERM drains, the second kills."""
        if threading.current_thread() is not threading.main_thread():  # signals arrive on the main thread only
            yield
            return
        loop = asyncio.get_running_loop()

        def arrived(number: int, frame: FrameType | None = None) -> None:
            if self._stopping.is_set():
                self._kill()
            loop.call_soon_threadsafe(self.stop, signal.Signals(number).name)

        before = {number: signal.signal(number, arrived) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


class _Uvicorn(uvicorn.Server):  # type: ignore[misc]
    """uvicorn's server without its signals."""

    async def open(self, bound: socket.socket) -> None:
        """Starts the application's lifespan and listens."""
        self.lifespan = self.config.lifespan_class(self.config)
        try:
            await self.startup(sockets=[bound])
        except SystemExit:
            raise ConfigurationError("An API plugin could not start; the log above names it and the cause.") from None


def _load(config: uvicorn.Config, server: ServerSettings) -> None:
    for key, name in (("tls_cert", server.tls_cert), ("tls_key", server.tls_key)):
        if name is not None and not Path(name).is_file():
            raise ConfigurationError(f"server.{key}: there is no file {name!r}.")
    if server.tls_key is not None and server.tls_cert is None:
        raise ConfigurationError("server.tls_key is set and server.tls_cert is not: a key without its certificate.")
    try:
        config.load()
    except ssl.SSLError as error:
        raise ConfigurationError(
            f"server.tls_cert: {server.tls_cert!r} and its key cannot be used ({error.reason or 'not PEM'})."
            f" Both must be PEM, and the key must belong to the certificate."
        ) from None
