"""What the plugin openai answers, asked at a path of this one: there is one chat, whoever asks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeAlias

import msgspec
from litestar import Response

from modelport.contract.errors import NotFound
from modelport_api_huggingface.answer import AnyRequest

__all__ = ["CHAT", "COMPLETIONS", "Forwarded", "asked"]

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"

_OF_ASGI = frozenset(
    {"type", "asgi", "http_version", "server", "client", "scheme", "method", "root_path", "query_string", "headers", "extensions"}
)
Send: TypeAlias = Callable[[Any], Awaitable[None]]


class Forwarded(Response[bytes]):
    """What the server answers at `path` to `body`, for the same caller.

    Args:
        request: The request that goes on.
        path: One of the paths above.
        body: JSON, in place of the request's own.
        in_its_words: Whether errors have the words of `path`, not those of the path that was asked.

    Raises:
        NotFound: the plugin openai is not enabled.
    """

    def __init__(self, request: AnyRequest, path: str, body: bytes, *, in_its_words: bool = False) -> None:
        if not any(route.path == path for route in request.app.routes):
            raise NotFound(f"This is answered by the API plugin openai ({path}), which is not enabled. Enable it.")
        super().__init__(b"")
        self._app: Any = request.app
        scope: dict[str, Any] = dict(request.scope)
        kept = {name: value for name, value in scope.items() if name in _OF_ASGI or name.startswith("modelport.")}
        # The headers stay: their length is that of the body that was sent, which nothing behind reads.
        self._scope = {**kept, "path": path, "raw_path": path.encode()}
        if in_its_words:
            self._scope["modelport.path"] = path
            if (match := kept.get("modelport.match")) is not None:
                self._scope["modelport.match"] = msgspec.structs.replace(match, owner="openai", template=path)
        self._body = body

    def to_asgi_response(self, *args: Any, **kwargs: Any) -> Any:
        """The ASGI application that Litestar runs."""
        return self.respond

    async def respond(self, scope: Any, receive: Any, send: Send) -> None:
        """Lets the application answer."""
        messages = [{"type": "http.request", "body": self._body, "more_body": False}]

        async def replay() -> Any:
            return messages.pop() if messages else await receive()

        await self._app(self._scope, replay, send)


async def asked(request: AnyRequest, path: str, fields: Mapping[str, Any]) -> tuple[int, bytes]:
    """The status and the body of the whole answer that the server gives at `path` to `fields`; errors have the words of the
    path that was asked.

    Raises:
        NotFound: the plugin openai is not enabled.
    """
    status, body = 500, bytearray()

    async def keep(message: Any) -> None:
        nonlocal status
        status = message.get("status", status)
        body.extend(message.get("body", b""))

    await Forwarded(request, path, msgspec.json.encode(fields)).respond(None, request.receive, keep)
    return status, bytes(body)
