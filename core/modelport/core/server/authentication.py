"""The outermost layer: nothing reaches a route, a mount, a 404 or a 405 without passing here.

Default deny. Open are exactly GET and HEAD of /health, /health/live and /health/ready, and CORS preflight. For the rest the host
says who asks; the answer is in the scope under these keys, and only there:

* `modelport.principal`: who asks,
* `modelport.request_id`: the caller's `x-request-id`, or one made here,
* `modelport.receive`: a callable that returns when the client has left,
* `modelport.match` and `modelport.path`: the route, and the path before a mount shortens it.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

import structlog

from modelport.contract.errors import ModelportError, PayloadTooLarge, Unauthenticated
from modelport.contract.host import Host
from modelport.core.observe.logs import request_id as current_request
from modelport.core.observe.metrics import Metrics
from modelport.core.server.cors import Cors
from modelport.core.server.errors import ErrorWriter, Failure, failure_of, method_not_allowed, no_route
from modelport.core.server.forwarded import Proxies
from modelport.core.server.receiving import Receiver
from modelport.core.server.routes import CORE, RouteTable

__all__ = ["OPEN_PATHS", "App", "Authentication", "BrokenOff"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Any, Any], Awaitable[None]]

OPEN_PATHS = frozenset({"/health", "/health/live", "/health/ready"})
"""What is answered without a key, for GET and HEAD, written exactly so."""

_SANE_ID = re.compile(r"[A-Za-z0-9_.:\-]{1,128}")
_log = structlog.get_logger("modelport.server")


class Authentication:
    """The middleware around the whole application.

    Args:
        app: What it protects.
        host: Who knows the keys.
        table: Routes, for owners, 404, 405 and metrics.
        errors: How refusals are worded.
        metrics: Where requests are counted.
        proxies: Whose `X-Forwarded-*` is believed.
        cors: Which origins may call.
        body_limit: Most bytes of body that anything behind may read.
        surfaces: Names of the enabled API plugins, for the 404.
    """

    def __init__(
        self,
        app: App,
        *,
        host: Host,
        table: RouteTable,
        errors: ErrorWriter,
        metrics: Metrics,
        proxies: Proxies,
        cors: Cors,
        body_limit: int,
        surfaces: list[str],
    ) -> None:
        self._app = app
        self._host = host
        self._table = table
        self._errors = errors
        self._metrics = metrics
        self._proxies = proxies
        self._cors = cors
        self._body_limit = body_limit
        self._surfaces = surfaces

    @property
    def has_websockets(self) -> bool:
        """Whether the HTTP server must speak WebSocket at all."""
        return self._table.has_websockets

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection of any type."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        is_http = scope["type"] == "http"
        method = scope["method"] if is_http else "WEBSOCKET"
        path: str = scope["path"]
        peer = scope["client"][0] if scope.get("client") else ""
        client, scope["scheme"], scope["headers"] = self._proxies.resolve(
            peer, scope.get("scheme", "http"), list(scope["headers"])
        )
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        asked_id = headers.get("x-request-id", "")
        request_id = asked_id if _SANE_ID.fullmatch(asked_id) else f"req-{secrets.token_hex(12)}"
        match = self._table.match(path, method)
        if method == "HEAD" and "GET" in match.allowed:  # what can be read can be asked about; the HTTP server drops the body
            match = self._table.match(path, "GET")
            scope = {**scope, "method": "GET"}
        shared = Receiver(receive, self._body_limit) if is_http else None
        origin = headers.get("origin")
        answer = _Answer(send, request_id, self._cors.headers(origin.encode("latin-1") if origin else None))
        scope["modelport.request_id"] = request_id
        scope["modelport.match"] = match
        scope["modelport.path"] = path
        if shared is not None:
            scope["modelport.receive"] = shared.disconnected
        if client != peer:
            scope["client"] = (client, 0)

        token = current_request.set(request_id)
        try:
            if is_http and method == "OPTIONS" and origin and "access-control-request-method" in headers:
                asked = headers.get("access-control-request-headers", "").encode("latin-1")
                await answer.empty(204, self._cors.preflight(origin.encode("latin-1"), asked))
                return
            failure = self._admit(scope, headers, client, method)
            if failure is None:
                await self._app(scope, shared or receive, answer.send)
            elif is_http:
                await answer.reply(self._errors.reply(failure, match.owner, path, request_id))
            else:
                await self._deny_websocket(scope, receive, answer, failure)
        except Exception as error:
            # Litestar has worded what it could; what arrives here broke after the response began, or in Litestar itself.
            failure = failure_of(error.__cause__ if answer.started and isinstance(error.__cause__, Exception) else error)
            if is_http and not answer.started:
                await answer.reply(self._errors.reply(failure, match.owner, path, request_id))
            elif not answer.complete:
                raise BrokenOff(f"{request_id} ended before its response did") from None
        finally:
            if shared is not None:
                shared.close()
            seconds = time.perf_counter() - started
            route = match.template or "unmatched"
            self._metrics.http_request(method, route, answer.status, seconds)
            line = _log.debug if match.owner == CORE else _log.info
            line("request", method=method[:16], route=route, status=answer.status, ms=round(seconds * 1000, 2))
            current_request.reset(token)

    def _admit(self, scope: Scope, headers: Mapping[str, str], client: str, method: str) -> Failure | None:
        """Why the request goes no further, or None."""
        path: str = scope["path"]
        is_open = scope["type"] == "http" and path in OPEN_PATHS and method in {"GET", "HEAD"}
        if not is_open:
            try:
                scope["modelport.principal"] = self._host.authenticate(_credential(headers), headers, client)
            except ModelportError as error:
                return Failure(error)
            except Exception as error:  # fail closed: whoever cannot be checked is not let in
                failure_of(error)
                return Failure(Unauthenticated("Your key could not be checked. Try again; the server's log has the cause."))
        match = scope["modelport.match"]
        if match.allowed:
            return method_not_allowed(method, path, match)
        if not match.template:
            return no_route(method, path, self._surfaces)
        length = headers.get("content-length", "")
        if length.isdecimal() and int(length[:20]) > self._body_limit:
            return Failure(PayloadTooLarge(f"The body has {length[:20]} bytes; this server takes {self._body_limit:,}."))
        return None

    async def _deny_websocket(self, scope: Scope, receive: Receive, answer: _Answer, failure: Failure) -> None:
        await receive()  # websocket.connect
        if "websocket.http.response" in (scope.get("extensions") or {}):
            reply = self._errors.reply(failure, scope["modelport.match"].owner, scope["path"], answer.request_id)
            await answer.reply(reply, prefix="websocket.http.response")
        else:
            answer.status = 403
            await answer.send({"type": "websocket.close", "code": 1008, "reason": failure.error.message[:120]})


def _credential(headers: Mapping[str, str]) -> str | None:
    """The key that a request bears: `Authorization: Bearer KEY`, or `x-api-key: KEY`."""
    scheme, _, value = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and value.strip():
        return value.strip()
    return headers.get("x-api-key") or None


class BrokenOff(Exception):
    """Tells the ASGI server to cut the connection, so that the client does not take half a response for a whole one.

    It has no cause: servers print causes, and a cause may quote a prompt. Ours is in the log already.
    """


class _Answer:
    """The way out: adds the request id and CORS to the first message, and remembers the status."""

    __slots__ = ("_extra", "_send", "complete", "request_id", "started", "status")

    def __init__(self, send: Send, request_id: str, cors: list[tuple[bytes, bytes]]) -> None:
        self._send = send
        self._extra = [(b"x-request-id", request_id.encode("latin-1")), *cors]
        self.request_id = request_id
        self.started = False
        self.complete = False
        self.status = 499

    async def send(self, message: Message) -> None:
        """The ASGI `send` of everything behind."""
        kind = message["type"]
        if kind in {"http.response.start", "websocket.http.response.start"}:
            self.started = True
            self.status = message["status"]
            message = {**message, "headers": [*message.get("headers", ()), *self._extra]}
        elif kind == "websocket.accept":
            self.status = 101
        elif kind == "websocket.close" or (kind.endswith(".response.body") and not message.get("more_body", False)):
            self.complete = True
        await self._send(message)

    async def reply(self, reply: Any, prefix: str = "http.response") -> None:
        """A whole error reply."""
        headers = [(b"content-type", reply.media_type.encode()), (b"content-length", str(len(reply.body)).encode())]
        headers += [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in reply.headers.items()]
        await self.send({"type": f"{prefix}.start", "status": reply.status, "headers": headers})
        await self.send({"type": f"{prefix}.body", "body": reply.body})

    async def empty(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """A reply without a body, and without the headers that are added to others."""
        self.started, self.status = True, status
        extra = [pair for pair in self._extra if pair[0] == b"x-request-id"]
        await self._send({"type": "http.response.start", "status": status, "headers": [*headers, *extra]})
        await self._send({"type": "http.response.body", "body": b""})
