"""The routes of the core itself: health for orchestrators, metrics for Prometheus. They exist whatever is enabled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import msgspec
from litestar import Request, Response, route
from litestar.enums import HttpMethod

from modelport.contract.errors import Forbidden
from modelport.core.observe.metrics import Metrics

__all__ = ["Readiness", "core_handlers"]

Readiness = Callable[[], Literal["ready", "loading", "failed", "draining"]]
"""Whether the server wants traffic: `ready` once every `preload` model is; a word and no more, because anyone may ask."""

_READ = [HttpMethod.GET, HttpMethod.HEAD]


def core_handlers(readiness: Readiness, metrics: Metrics) -> Sequence[Any]:
    """Litestar handlers of /health, /health/live, /health/ready, /metrics and /v1/metrics."""

    @route(["/health", "/health/live"], http_method=_READ, opt={"scope": "open"}, sync_to_thread=False)
    def live() -> Response[bytes]:
        return _json(200, "ok")

    @route("/health/ready", http_method=_READ, opt={"scope": "open"}, sync_to_thread=False)
    def ready() -> Response[bytes]:
        state = readiness()
        return _json(200 if state == "ready" else 503, state)

    @route(["/metrics", "/v1/metrics"], http_method=_READ, opt={"scope": "infer"}, sync_to_thread=False)
    def exposition(request: Request[Any, Any, Any]) -> Response[bytes]:
        principal = request.scope["modelport.principal"]  # type: ignore[typeddict-item]
        if principal.models is not None and "admin" not in principal.scopes:
            raise Forbidden("This key may use some models only; metrics tell of all of them. Ask with a key for all models.")
        body, content_type = metrics.exposition(request.headers.get("accept", ""))
        return Response(body, media_type=content_type)

    return [live, ready, exposition]


def _json(status: int, word: str) -> Response[bytes]:
    headers = {"retry-after": "2"} if status == 503 else {}
    return Response(msgspec.json.encode({"status": word}), status_code=status, media_type="application/json", headers=headers)
