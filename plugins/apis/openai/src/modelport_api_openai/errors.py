"""Errors as OpenAI writes them."""

from __future__ import annotations

import re

import msgspec

from modelport.contract.api import ErrorReply, status_of
from modelport.contract.errors import InvalidRequest, ModelportError

__all__ = ["ErrorBody", "ErrorObject", "error_body", "error_reply", "invalid"]

_TYPE_AND_CODE: dict[str, tuple[str, str | None]] = {
    "invalid": ("invalid_request_error", None),
    "unsupported": ("invalid_request_error", "unsupported_parameter"),
    "too_long": ("invalid_request_error", "context_length_exceeded"),
    "wrong_task": ("invalid_request_error", "model_not_supported"),
    "too_large": ("invalid_request_error", "request_too_large"),
    "unauthenticated": ("invalid_request_error", "invalid_api_key"),
    "forbidden": ("permission_error", "insufficient_permissions"),
    "not_found": ("invalid_request_error", "not_found"),
    "conflict": ("invalid_request_error", "conflict"),
    "overloaded": ("rate_limit_error", "rate_limit_exceeded"),
    "unavailable": ("service_unavailable_error", "server_overloaded"),
    "deadline": ("timeout_error", "deadline_exceeded"),
    "cancelled": ("invalid_request_error", "request_cancelled"),
    "model_failed": ("server_error", "model_failed"),
    "device_failed": ("server_error", "device_failed"),
    "out_of_memory": ("server_error", "device_failed"),
    "not_numbers": ("server_error", "device_failed"),
    "configuration": ("server_error", "model_misconfigured"),
}

_POINTLESS = frozenset({"deadline", "configuration", "conflict"})
"""Kinds that the same request would meet again, though the official client would retry their statuses."""

_ABOUT_A_MODEL = re.compile(r"/v1/(embeddings|completions|chat/completions|audio/\w+|rerank|models(/[^/]+){1,2})|/v2/rerank")


class ErrorObject(msgspec.Struct, frozen=True, kw_only=True):
    """OpenAI's error: all four keys are always there, and `code` is never a number."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorBody(msgspec.Struct, frozen=True):
    """What a refused request, or a stream that failed, carries."""

    error: ErrorObject


def error_body(error: ModelportError, path: str = "") -> bytes:
    """`error` as JSON. Where `param` does not say so, `path` tells an unknown model from an unknown address."""
    kind, code = _TYPE_AND_CODE.get(error.kind, ("server_error", None))
    param = "model" if error.kind == "wrong_task" else error.param  # here a path names the task, and only the model is a field
    if error.kind == "not_found" and param in (None, "model"):
        about_a_model = param == "model" or _ABOUT_A_MODEL.fullmatch(path)
        param, code = ("model", "model_not_found") if about_a_model else (None, "unknown_url")
    return msgspec.json.encode(ErrorBody(ErrorObject(message=error.message, type=kind, param=param, code=code)))


def error_reply(error: ModelportError, path: str) -> ErrorReply:
    """`error` as a response. The core adds `x-request-id` and `Retry-After`; the SDK reads milliseconds before seconds."""
    headers = {}
    if error.retry_after_s is not None:
        headers["retry-after-ms"] = str(max(0, round(error.retry_after_s * 1000)))
    if error.kind in _POINTLESS:
        headers["x-should-retry"] = "false"
    return ErrorReply(status=status_of(error), body=error_body(error, path), headers=headers)


def invalid(param: str, message: str) -> InvalidRequest:
    """An error about the field `param`."""
    return InvalidRequest(message, param=param)
