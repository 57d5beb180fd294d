"""The native API of modelport: every task by its own Structs, and what operators need to see and do.

The handlers are in `handlers`, imported only when this plugin is enabled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from modelport import hookimpl
from modelport.contract.api import Api, ErrorReply, status_of
from modelport.contract.errors import ModelportError

MODELPORT_CONTRACT = "1.0"

__all__ = ["MODELPORT_CONTRACT", "Native", "error_body", "register_apis"]


def error_body(error: ModelportError) -> dict[str, Any]:
    """An error as this API writes it, in bodies and in streams."""
    body: dict[str, Any] = {"type": error.kind, "message": error.message, "param": error.param}
    if error.retry_after_s is not None:
        body["retry_after_s"] = error.retry_after_s
    return {"error": body}


class Native(Api):
    """The surface."""

    name = "native"
    prefixes = ("/v1/infer", "/v1/catalog", "/v1/hardware", "/v1/plugins")

    def routes(self) -> Sequence[Any]:
        """The handlers."""
        from modelport_api_native.handlers import HANDLERS

        return HANDLERS

    def error(self, error: ModelportError, path: str) -> ErrorReply | None:
        """`{"error": {"type", "message", "param"}}`; `type` is the kind of `modelport.contract.errors`."""
        return ErrorReply(status=status_of(error), body=msgspec.json.encode(error_body(error)))


@hookimpl
def register_apis(options: Mapping[str, Any]) -> Sequence[Api]:
    """The one surface of this plugin."""
    return [Native(dict(options))]
