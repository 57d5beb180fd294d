"""Errors in the words of each dialect that this plugin speaks."""

from __future__ import annotations

import math
from typing import Any, Literal, TypeAlias

import msgspec

from modelport.contract.api import ErrorReply, status_of
from modelport.contract.errors import InvalidRequest, ModelportError

__all__ = ["MODEL_KEY", "Dialect", "Empty", "dialect_of", "error_body", "error_reply"]

Dialect: TypeAlias = Literal["hub", "tgi", "tei", "openai", "tei-openai"]

MODEL_KEY = "apis.huggingface.model"
"""The key of the configuration that names the model of routes which name none."""

_TGI_TYPES = {
    "overloaded": "overloaded",
    "unavailable": "unhealthy",
    "model_failed": "generation",
    "device_failed": "generation",
    "out_of_memory": "generation",
    "not_numbers": "generation",
    "cancelled": "incomplete_generation",
    "deadline": "timeout",
}
_TEI_TYPES = {
    "overloaded": "Overloaded",
    "unavailable": "Unhealthy",
    "configuration": "Unhealthy",
    "model_failed": "Backend",
    "device_failed": "Backend",
    "out_of_memory": "Backend",
    "not_numbers": "Backend",
    "internal": "Backend",
}
_OPENAI_CODES = {"invalid": None, "unauthenticated": "invalid_api_key", "too_large": "request_too_large"}
"""Codes of those errors that the plugin openai never sees."""

_FAILED = frozenset({"model_failed", "device_failed", "out_of_memory", "not_numbers"})
_TEI_PATHS = frozenset({"/embed", "/embed_all", "/embed_sparse", "/rerank", "/predict", "/similarity", "/decode"})


class Empty(InvalidRequest):
    """A list of inputs without one: TEI has a word and a status of its own for it."""


def dialect_of(path: str) -> Dialect:
    """The dialect of a path. Of those that TGI and TEI share it is TGI's; their handlers know better once a model is found."""
    if path.endswith("/v1/chat/completions"):
        return "openai"
    if path.startswith(("/models", "/v1/")):
        return "hub"
    if path.rstrip("/") == "/embeddings":
        return "tei-openai"
    return "tei" if path.rstrip("/") in _TEI_PATHS else "tgi"


def error_reply(error: ModelportError, dialect: Dialect) -> ErrorReply:
    """`error` as a response. TGI and TEI answer 422 to what is wrong with a request, and 424 to what failed in the model."""
    status = status_of(error)
    if dialect in ("tgi", "tei", "tei-openai"):
        if error.kind in _FAILED:
            status = 424
        elif status == 400 and not isinstance(error, Empty) and error.param != MODEL_KEY:
            status = 422
    headers = {} if error.retry_after_s is None else {"retry-after": str(max(1, math.ceil(error.retry_after_s)))}
    return ErrorReply(status=status, body=msgspec.json.encode(_body(error, dialect, status)), headers=headers)


def error_body(error: ModelportError, dialect: Dialect) -> bytes:
    """`error` as the JSON of an event in a stream."""
    return error_reply(error, dialect).body


def _body(error: ModelportError, dialect: Dialect, status: int) -> dict[str, Any]:
    if dialect == "openai":
        kind = "invalid_request_error" if status < 500 else "server_error"
        code = _OPENAI_CODES.get(error.kind, error.kind)
        return {"error": {"message": error.message, "type": kind, "param": error.param, "code": code}}
    if dialect == "tei-openai":
        return {"message": error.message, "code": status, "type": _tei_type(error)}
    kind = _tei_type(error) if dialect == "tei" else _tgi_type(error)
    return {"error": error.message, "error_type": kind}


def _tgi_type(error: ModelportError) -> str:
    return "validation" if isinstance(error, InvalidRequest) else _TGI_TYPES.get(error.kind, error.kind)


def _tei_type(error: ModelportError) -> str:
    if isinstance(error, Empty):
        return "Empty"
    if isinstance(error, InvalidRequest):
        return "Tokenizer" if error.param is not None and error.param.partition(".")[0] == "ids" else "Validation"
    return _TEI_TYPES.get(error.kind, error.kind)
