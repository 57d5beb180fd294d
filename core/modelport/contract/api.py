"""API surfaces: what a `modelport.apis` plugin registers.

A surface decodes its dialect into a task's request and encodes the result; it knows no model. Its `__init__.py` holds the
`Api` and imports nothing heavy; the handlers live in a module that `routes` imports::

    class Echo(Api):
        name = "echo"

        def routes(self):
            from modelport_api_echo.handlers import echo
            return [echo]

Handlers are Litestar's. They get the host as a dependency named `host`, and say `opt={"scope": "admin"}` if an `infer` key
must not reach them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

from modelport.contract.errors import ModelportError

if TYPE_CHECKING:
    from modelport.contract.host import Host

__all__ = ["RESERVED_NAMES", "Api", "ErrorReply", "model_id", "model_route", "status_of"]

RESERVED_NAMES = frozenset({"info", "placement", "load", "unload", "ready", "versions"})
"""Words that cannot be the last part of a model's name: they follow names in routes."""

_STATUS = {
    "invalid": 400,
    "unsupported": 400,
    "too_long": 400,
    "wrong_task": 400,
    "too_large": 413,
    "unauthenticated": 401,
    "forbidden": 403,
    "not_found": 404,
    "conflict": 409,
    "overloaded": 429,
    "unavailable": 503,
    "deadline": 504,
    "cancelled": 499,
    "model_failed": 500,
    "configuration": 503,
    "internal": 500,
}


def status_of(error: ModelportError) -> int:
    """The HTTP status of an error's kind; a surface may choose another."""
    return _STATUS.get(error.kind, 500)


class ErrorReply(msgspec.Struct, frozen=True, kw_only=True):
    """An error in a dialect. The core adds `x-request-id` and, where known, `Retry-After`."""

    status: int
    body: bytes
    media_type: str = "application/json"
    headers: dict[str, str] = {}


class Api:
    """The base of every surface. One instance lives in the server.

    Attributes:
        name: Its name in configuration, equal to its entry point's.
        prefixes: Paths whose errors it words even where no route of its own matches (`/v1/chat`).
    """

    name: ClassVar[str]
    prefixes: ClassVar[tuple[str, ...]] = ()

    def __init__(self, options: dict[str, Any] | None = None) -> None:
        """`options` is the table `apis.NAME` of the configuration."""
        self.options = options or {}

    def routes(self) -> Sequence[Any]:
        """Litestar handlers, controllers, routers or mounts. Called once, at start, only if the surface is enabled."""
        return ()

    def error(self, error: ModelportError, path: str) -> ErrorReply | None:
        """`error` in this dialect, for a request to `path`; None leaves it to the plain form. Must not raise."""
        return None

    @asynccontextmanager
    async def lifespan(self, host: Host) -> AsyncIterator[None]:
        """Runs around the server's life, for what a surface must open and close."""
        yield

    async def serve(self, host: Host) -> None:
        """Another transport (gRPC): runs until cancelled, authenticates through `host.authenticate`. Default: nothing."""


def model_route(prefix: str, suffix: str = "") -> list[str]:
    """The two path templates of a route about one model, whose id may hold one slash.

    >>> model_route("/v1/models", "/info")
    ['/v1/models/{name:str}/info', '/v1/models/{owner:str}/{name:str}/info']

    A handler of both takes `name: str` and `owner: str | None = None` and joins them with `model_id`. A slash written as
    `%2F` arrives as the second form.
    """
    return [f"{prefix}/{{name:str}}{suffix}", f"{prefix}/{{owner:str}}/{{name:str}}{suffix}"]


def model_id(name: str, owner: str | None = None) -> str:
    """The model id of a `model_route`'s path parameters."""
    return f"{owner}/{name}" if owner else name
