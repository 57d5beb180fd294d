"""POST /echo: a text comes back with what a model writes after it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from modelport import hookimpl
from modelport.contract import Api, ErrorReply, ModelportError, status_of

MODELPORT_CONTRACT = "1.0"


class Echo(Api):
    """What the server knows of the surface."""

    name = "echo"
    prefixes = ("/echo",)

    def routes(self) -> Sequence[Any]:
        """Imported here, because the server imports this module even where only its name is wanted."""
        from modelport_api_echo.handlers import echo

        return [echo]

    def error(self, error: ModelportError, path: str) -> ErrorReply | None:
        """How this dialect words a failure."""
        return ErrorReply(status=status_of(error), body=msgspec.json.encode({"error": error.message}))


@hookimpl
def register_apis(options: Mapping[str, Any]) -> Sequence[Api]:
    """Called once at start, with the table `[apis.echo]` of the configuration."""
    return [Echo(dict(options))]
