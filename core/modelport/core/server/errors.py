"""Errors on their way out: any exception becomes a `ModelportError`, and that a reply in the dialect of the path's owner.

What is not one of ours is logged with where it happened and leaves as `internal`, without a stack trace. The log holds frames
and the exception's type, not its text, which may quote a prompt.
"""

from __future__ import annotations

import math
import traceback
from collections.abc import Mapping
from typing import Any

import msgspec
import structlog
from litestar import Request, Response
from litestar.exceptions import HTTPException, ValidationException

from modelport.contract.api import Api, ErrorReply, status_of
from modelport.contract.errors import (
    Forbidden,
    InvalidRequest,
    ModelportError,
    NotFound,
    PayloadTooLarge,
    Unauthenticated,
)
from modelport.core.server.routes import Match

__all__ = ["ErrorWriter", "Failure", "failure_of", "method_not_allowed", "no_route", "plain_reply"]

_log = structlog.get_logger("modelport.server")


class Failure(msgspec.Struct, frozen=True):
    """An error, and what HTTP says beyond its kind: a status that no kind has (405, 415), and headers."""

    error: ModelportError
    status: int | None = None
    headers: dict[str, str] = {}


def failure_of(error: Exception) -> Failure:
    """`error` as something that may leave the server. Unexpected ones are logged."""
    if isinstance(error, ModelportError):
        return Failure(error)
    if isinstance(error, HTTPException) and error.status_code < 500:
        return _from_litestar(error)
    if isinstance(error, HTTPException) and error.status_code == 503:
        return Failure(ModelportError("The server cannot answer this now."), 503)
    if "disconnected" in str(getattr(error, "detail", "")):
        return Failure(ModelportError("The client left while its request was read."), 499)
    where = [line.strip() for line in traceback.format_tb(error.__traceback__)[-12:]]
    if isinstance(error, RecursionError):  # just within what the decoder follows, and too deep for what comes after it
        _log.warning("nested too deeply", where=where)
        return Failure(InvalidRequest("The request is nested too deeply."))
    _log.error("unexpected error", error=type(error).__name__, where=where)
    return Failure(
        ModelportError("The server failed in a way it should not have. Its log has the details, under this request id.")
    )


def _from_litestar(error: HTTPException) -> Failure:
    headers = dict(error.headers or {})
    status = error.status_code
    if isinstance(error, ValidationException):
        faults = error.extra if isinstance(error.extra, list) else []
        first: Mapping[str, Any] = faults[0] if faults and isinstance(faults[0], Mapping) else {}
        field = str(first.get("key", "")) or None
        reason = str(first.get("message", "")) or error.detail
        where = f"The field '{field}' is wrong: " if field else "The request is wrong: "
        return Failure(InvalidRequest(f"{where}{reason}.", param=field))
    if status == 401:
        return Failure(Unauthenticated(error.detail))
    if status == 403:
        return Failure(Forbidden(error.detail))
    if status == 404:
        said = "" if error.detail == "Not Found" else f" {error.detail}"
        return Failure(NotFound(f"There is nothing at this path.{said}"))
    if status == 413:
        return Failure(PayloadTooLarge("The body is larger than this server takes (limits.body_bytes)."))
    return Failure(InvalidRequest(f"{error.detail.rstrip('.')}."), None if status == 400 else status, headers)


def no_route(method: str, path: str, surfaces: list[str]) -> Failure:
    """Nobody serves this path."""
    enabled = ", ".join(surfaces) or "none"
    return Failure(NotFound(f"There is no route {_shown(method)} {_shown(path)}. Enabled API plugins: {enabled}."))


def method_not_allowed(method: str, path: str, match: Match) -> Failure:
    """The path exists, for other methods."""
    allowed = ", ".join(match.allowed)
    error = InvalidRequest(f"{_shown(path)} does not take {_shown(method)}. Allowed: {allowed}.")
    return Failure(error, 405, {"allow": allowed})


def _shown(text: str) -> str:
    return text if len(text) <= 200 else text[:200] + "…"


def plain_reply(error: ModelportError, request_id: str) -> ErrorReply:
    """An error in no dialect: `{"error": {message, type, param, request_id}}`."""
    body = {"message": error.message, "type": error.kind, "param": error.param, "request_id": request_id}
    return ErrorReply(status=status_of(error), body=msgspec.json.encode({"error": body}))


class ErrorWriter:
    """Writes failures in the dialect of the surface that owns the path.

    Args:
        apis: Surfaces by the name of their plugin.
    """

    def __init__(self, apis: Mapping[str, Api]) -> None:
        self._apis = apis

    def reply(self, failure: Failure, owner: str | None, path: str, request_id: str) -> ErrorReply:
        """The complete reply: status, body, and the headers `retry-after`, `www-authenticate`, `allow` where they apply."""
        error = failure.error
        reply = self._in_dialect(error, owner, path) or plain_reply(error, request_id)
        headers = {**reply.headers, **failure.headers}
        if error.retry_after_s is not None:
            headers.setdefault("retry-after", str(max(1, math.ceil(error.retry_after_s))))
        if isinstance(error, Unauthenticated):
            headers.setdefault("www-authenticate", "Bearer")
        return msgspec.structs.replace(reply, status=failure.status or reply.status, headers=headers)

    def _in_dialect(self, error: ModelportError, owner: str | None, path: str) -> ErrorReply | None:
        api = self._apis.get(owner) if owner else None
        if api is None:
            return None
        try:
            return api.error(error, path)
        except Exception as broken:  # a surface that cannot even word an error must not turn it into another one
            _log.error("error encoder failed", api=owner, error=type(broken).__name__)
            return None

    def handle(self, request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
        """Litestar's exception handler, for every exception."""
        scope: Mapping[str, Any] = request.scope
        match: Match | None = scope.get("modelport.match")
        path = scope.get("modelport.path", scope["path"])
        reply = self.reply(failure_of(error), match.owner if match else None, path, scope.get("modelport.request_id", ""))
        return Response(reply.body, status_code=reply.status, media_type=reply.media_type, headers=reply.headers)
