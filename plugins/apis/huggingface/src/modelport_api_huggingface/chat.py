"""/models/{id}/v1/chat/completions: conversations with the model that the path names, answered by the plugin openai.

The official client appends `/v1/chat/completions` to a model's address, and then calls the model "dummy". The request goes on
to the server's own /v1/chat/completions with the name put in, so that there is one chat, whoever asks.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from litestar import Response, post

from modelport.contract.api import decode_body, model_id, model_route
from modelport.contract.errors import NotFound
from modelport_api_huggingface.answer import AnyRequest, HostDependency

__all__ = ["HANDLERS"]

_PATH = "/v1/chat/completions"
_OF_ASGI = frozenset(
    {"type", "asgi", "http_version", "server", "client", "scheme", "method", "root_path", "query_string", "headers", "extensions"}
)
Send = Callable[[Any], Awaitable[None]]


@post(model_route("/models", _PATH), status_code=200, summary="Conversations with a model, continued", tags=["hub"])
async def chat(request: AnyRequest, host: HostDependency) -> Response[bytes]:
    """Conversations, continued, in OpenAI's form."""
    info = host.model(host.principal(request.scope), model_id(**request.path_params))
    fields = decode_body(await request.body(), dict[str, msgspec.Raw])
    if not any(route.path == _PATH for route in request.app.routes):
        raise NotFound(f"Chat is answered by the API plugin openai ({_PATH}), which is not enabled. Enable it.")
    body = msgspec.json.encode({**fields, "model": info.id})
    return _Forwarded(request.app, dict(request.scope), body)


class _Forwarded(Response[bytes]):
    """What the application answers at another path to another body."""

    def __init__(self, app: Any, scope: dict[str, Any], body: bytes) -> None:
        super().__init__(b"")
        self._app = app
        kept = {name: value for name, value in scope.items() if name in _OF_ASGI or name.startswith("modelport.")}
        # The headers stay: their length is that of the body that was sent, which nothing behind reads.
        self._scope = {**kept, "path": _PATH, "raw_path": _PATH.encode(), "modelport.path": _PATH}
        if (match := kept.get("modelport.match")) is not None:  # whose words errors have
            self._scope["modelport.match"] = msgspec.structs.replace(match, owner="openai", template=_PATH)
        self._body = body

    def to_asgi_response(self, *args: Any, **kwargs: Any) -> Any:
        """The ASGI application that Litestar runs."""
        return self._respond

    async def _respond(self, scope: Any, receive: Any, send: Send) -> None:
        messages = [{"type": "http.request", "body": self._body, "more_body": False}]

        async def replay() -> Any:
            return messages.pop() if messages else await receive()

        await self._app(self._scope, replay, send)


HANDLERS = (chat,)
