"""The composition root: builds everything from the configuration, and starts and stops it in order."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, Literal

import structlog

from modelport.contract.executor import Executor
from modelport.core.catalog.catalog import Catalog
from modelport.core.config.settings import Settings
from modelport.core.executors.process import ProcessExecutor
from modelport.core.executors.thread import ThreadExecutor
from modelport.core.observe.metrics import Metrics
from modelport.core.placement.hardware import Hardware
from modelport.core.plugins.discover import discover
from modelport.core.plugins.record import KINDS
from modelport.core.plugins.registry import Registry
from modelport.core.serving.host import Host

__all__ = ["Application"]

_log = structlog.get_logger("modelport")


class Application:
    """A server, or the same without a socket for `modelport.Engine`.

    Attributes:
        settings: The configuration.
        registry: The plugins.
        catalog: Names, cards and skills.
        hardware: What there is to run on.
        metrics: What is counted.
        host: What API plugins talk to.
    """

    def __init__(
        self, settings: Settings, registry: Registry, catalog: Catalog, hardware: Hardware, metrics: Metrics, host: Host
    ) -> None:
        self.settings = settings
        self.registry = registry
        self.catalog = catalog
        self.hardware = hardware
        self.metrics = metrics
        self.host = host

    @classmethod
    def build(cls, settings: Settings, *, in_server: bool = True, registry: Registry | None = None) -> Application:
        """Puts everything together. Nothing runs yet: no process, no thread, no socket.

        Args:
            settings: The configuration.
            in_server: Whether this process serves; an engine needs no API plugins, and may run torch in its own process.
            registry: The plugins; by default those that are installed and enabled.

        Raises:
            ConfigurationError: it cannot work like this; the message has every reason.
        """
        if registry is None:
            registry = discover(settings, KINDS if in_server else [kind for kind in KINDS if kind != "apis"])
        catalog = Catalog(settings, registry)
        hardware = Hardware(registry, settings)
        metrics = Metrics()
        executors = _executors(registry, settings, in_server=in_server)
        host = Host(settings, registry, catalog, hardware, executors, metrics)
        for record in registry.failed:
            _log.warning("plugin failed", kind=record.kind, plugin=record.name, reason=record.reason)
        return cls(settings, registry, catalog, hardware, metrics, host)

    @functools.cached_property
    def asgi(self) -> Any:
        """The ASGI application; imports the web framework when it is first asked for.

        Raises:
            ConfigurationError: routes of API plugins overlap.
        """
        from modelport.core.server.asgi import build_asgi

        return build_asgi(self.host, self.registry, self.settings, self.metrics, self.readiness)

    @property
    def keys_in_force(self) -> bool:
        """Whether a request needs a key."""
        return self.host.keys_in_force

    def readiness(self) -> Literal["ready", "loading", "failed", "draining"]:
        """Whether the server wants traffic."""
        return self.host.readiness()

    async def startup(self) -> None:
        """Begins to probe and to preload."""
        await self.host.start()

    def drain(self) -> None:
        """Takes no new requests from now on."""
        self.host.drain()

    async def shutdown(self) -> None:
        """Lets requests finish within `server.drain_s`, then ends everything that was started."""
        await self.host.stop(self.settings.server.drain_s)


def _executors(registry: Registry, settings: Settings, *, in_server: bool) -> Mapping[str, Executor]:
    most = None if settings.allow_families else sum(model.replicas for model in settings.models.values())
    spare = (1 if in_server else 0) if settings.spare is None else settings.spare
    own: dict[str, Executor] = {"process": ProcessExecutor(spare=spare, most=most), "thread": ThreadExecutor(in_server=in_server)}
    return {**registry.executors, **own}
