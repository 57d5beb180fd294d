"""The ASGI application: every surface's routes in one Litestar app, behind authentication."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Protocol, cast

import structlog
from litestar import Litestar
from litestar.di import Provide
from litestar.types import ASGIApp, Receive, Scope, Send

from modelport.contract.api import Api
from modelport.contract.errors import Forbidden
from modelport.contract.host import Host
from modelport.core.config.settings import Settings
from modelport.core.observe.metrics import Metrics
from modelport.core.server.authentication import App, Authentication
from modelport.core.server.cors import Cors
from modelport.core.server.errors import ErrorWriter
from modelport.core.server.forwarded import Proxies
from modelport.core.server.health import Readiness, core_handlers
from modelport.core.server.routes import CORE, RouteTable, routes_of

__all__ = ["Application", "Surfaces", "build_asgi"]

_log = structlog.get_logger("modelport.server")


class Surfaces(Protocol):
    """What is needed of the plugin registry."""

    @property
    def apis(self) -> Mapping[str, Api]:
        """Enabled surfaces by the name of their plugin."""


class Application(Protocol):
    """An ASGI application that knows whether it needs WebSockets."""

    @property
    def has_websockets(self) -> bool: ...

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None: ...


def build_asgi(host: Host, registry: Surfaces, settings: Settings, metrics: Metrics, readiness: Readiness) -> Application:
    """Puts it together. Nothing runs yet: surfaces' lifespans and further transports start with the ASGI lifespan.

    Raises:
        ConfigurationError: routes overlap or cannot be used; the message names the plugins and the routes.
    """
    apis = dict(registry.apis)
    core = list(core_handlers(readiness, metrics))
    handlers = {name: list(api.routes()) for name, api in apis.items()}
    routes = routes_of(CORE, core)
    for name, listed in handlers.items():
        routes += routes_of(name, listed)
    table = RouteTable(routes, {name: api.prefixes for name, api in apis.items()})
    errors = ErrorWriter(apis)

    def provide_host() -> Any:
        return host

    app = Litestar(
        [*core, *(handler for listed in handlers.values() for handler in listed)],
        dependencies={"host": Provide(provide_host, sync_to_thread=False, use_cache=True)},
        exception_handlers={Exception: errors.handle},
        middleware=[require_scope],
        lifespan=[_lifespan(host, apis)],
        logging_config=None,
        openapi_config=None,
        request_max_body_size=settings.limits.body_bytes,
    )
    return Authentication(
        cast("App", app),
        host=host,
        table=table,
        errors=errors,
        metrics=metrics,
        proxies=Proxies(settings.server.trusted_proxies),
        cors=Cors(settings.server.cors_origins),
        body_limit=max(settings.limits.body_bytes, settings.limits.media_bytes),
        surfaces=sorted(apis),
    )


def require_scope(app: ASGIApp) -> ASGIApp:
    """Keeps keys without `admin` from handlers and mounts that say `opt={"scope": "admin"}`.

    A middleware and not a guard: it sees the very handler that Litestar will call, as a guard does, but Litestar copies the
    handler for every call of a guard.
    """

    async def checked(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["route_handler"].opt.get("scope", "infer") == "admin":
            principal: Any = scope.get("modelport.principal")
            if principal is None or "admin" not in principal.scopes:
                raise Forbidden("This needs a key with the scope 'admin'. Make one with `modelport keys create --scope admin`.")
        await app(scope, receive, send)

    return checked


def _lifespan(host: Host, apis: Mapping[str, Api]) -> Any:
    """Opens every surface, runs its other transports beside HTTP, and closes all in reverse."""

    @asynccontextmanager
    async def lifespan(app: Litestar) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            for name, api in apis.items():
                try:
                    await stack.enter_async_context(api.lifespan(host))
                except Exception as error:
                    _log.error("API plugin could not start", api=name, error=type(error).__name__, reason=str(error))
                    raise
            transports = [
                asyncio.create_task(_serve(name, api, host), name=f"api:{name}")
                for name, api in apis.items()
                if type(api).serve is not Api.serve
            ]
            try:
                yield
            finally:
                for transport in transports:
                    transport.cancel()
                await asyncio.gather(*transports, return_exceptions=True)

    return lifespan


async def _serve(name: str, api: Api, host: Host) -> None:
    """One further transport. If it breaks, HTTP goes on."""
    try:
        await api.serve(host)
    except asyncio.CancelledError:
        raise
    except Exception as error:
        _log.error("transport failed", api=name, error=type(error).__name__, reason=str(error))
