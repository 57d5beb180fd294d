"""The asynchronous client."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlencode

import httpx
import msgspec

from modelport.client.wire import Answer, event_of, infer_body, model_path, reply_of, settings_of, unreachable
from modelport.contract.errors import ModelFailed
from modelport.contract.host import ModelInfo
from modelport.contract.reply import Options

__all__ = ["AsyncClient"]


class AsyncClient:
    """Calls a running server. Methods are those of `Client`, to be awaited; use it in an `async with` block, or `aclose` it.

    Args:
        base_url: Where the server listens.
        key: An API key, if the server asks for one.
        timeout_s: Longest wait for the next bytes; None waits for ever. A cold model may take a minute to load.
        transport: Another way to reach a server, for tests.

    Raises:
        ConfigurationError: `base_url` is no address.
    """

    def __init__(
        self,
        base_url: str = "http://127.0.0.1:8000",
        key: str | None = None,
        timeout_s: float | None = 300.0,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._base_url = base_url
        self._http = httpx.AsyncClient(**settings_of(base_url, key, timeout_s), transport=transport)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Closes the connections."""
        await self._http.aclose()

    async def infer(
        self,
        model: str,
        request: msgspec.Struct | Mapping[str, Any],
        task: str | None = None,
        options: Options = Options(),
    ) -> Answer:
        """One request, answered. `task` is the model's first if None.

        Raises:
            ModelportError: of the kind that says why not.
        """
        body = infer_body(request, task, options, stream=False)
        return await self._ask("POST", model_path("/v1/infer", model), Answer, body, options)  # type: ignore[no-any-return]

    async def stream(
        self,
        model: str,
        request: msgspec.Struct | Mapping[str, Any],
        task: str | None = None,
        options: Options = Options(),
    ) -> AsyncIterator[Any]:
        """The deltas of a streamed answer. Leaving the loop cancels the request.

        Raises:
            ModelportError: before the first delta or between two.
        """
        body = infer_body(request, task, options, stream=True)
        headers = _headers(options)
        try:
            async with self._http.stream("POST", model_path("/v1/infer", model), content=body, headers=headers) as response:
                if response.status_code >= 400:
                    await response.aread()
                    reply_of(response)
                served = response.headers.get("x-modelport-task", task)
                async for line in response.aiter_lines():
                    if line.startswith("data: "):
                        delta, end = event_of(line[6:], served)
                        if end is not None:
                            return
                        yield delta
        except httpx.TransportError as error:
            raise unreachable(error, self._base_url) from None
        raise ModelFailed("The stream broke off before its end. The server may have stopped; try again.")

    async def models(self) -> list[ModelInfo]:
        """Every model that the key may use."""
        return msgspec.convert((await self.catalog())["models"], list[ModelInfo])

    async def catalog(self) -> dict[str, Any]:
        """Models and tasks, with the tasks' JSON Schemas."""
        return await self._ask("GET", "/v1/catalog", dict[str, Any])  # type: ignore[no-any-return]

    async def info(self, model: str) -> ModelInfo:
        """What is known of a model, and its state."""
        return await self._ask("GET", model_path("/v1/models", model, "/info"), ModelInfo)  # type: ignore[no-any-return]

    async def placement(self, model: str) -> dict[str, Any]:
        """Where a model runs, and why there, with the keys of `Client.placement`."""
        return await self._ask("GET", model_path("/v1/models", model, "/placement"), dict[str, Any])  # type: ignore[no-any-return]

    async def load(self, model: str) -> ModelInfo:
        """Loads a model; returns when it is ready. Needs a key with the scope `admin`."""
        return await self._ask("POST", model_path("/v1/models", model, "/load"), ModelInfo)  # type: ignore[no-any-return]

    async def unload(self, model: str) -> ModelInfo:
        """Unloads a model. Needs a key with the scope `admin`."""
        return await self._ask("POST", model_path("/v1/models", model, "/unload"), ModelInfo)  # type: ignore[no-any-return]

    async def hardware(self) -> list[dict[str, Any]]:
        """Every backend with its devices. Needs a key with the scope `admin`."""
        return (await self._ask("GET", "/v1/hardware", dict[str, Any]))["backends"]  # type: ignore[no-any-return]

    async def recommendations(self, task: str | None = None) -> list[dict[str, Any]]:
        """As `Client.recommendations`."""
        path = f"/v1/recommendations?{urlencode({'task': task})}" if task is not None else "/v1/recommendations"
        return (await self._ask("GET", path, dict[str, Any]))["recommendations"]  # type: ignore[no-any-return]

    async def rate(self, request_id: str, score: float) -> None:
        """As `Client.rate`."""
        await self._ask("POST", "/v1/feedback", None, msgspec.json.encode({"request_id": request_id, "score": score}))

    async def plugins(self) -> list[dict[str, Any]]:
        """Every plugin with its state. Needs a key with the scope `admin`."""
        return (await self._ask("GET", "/v1/plugins", dict[str, Any]))["plugins"]  # type: ignore[no-any-return]

    async def ready(self) -> bool:
        """Whether the server answers and has loaded what it preloads."""
        try:
            return (await self._http.get("/health/ready")).status_code == 200
        except httpx.TransportError:
            return False

    async def _ask(self, method: str, path: str, kind: Any, body: bytes | None = None, options: Options = Options()) -> Any:
        try:
            response = await self._http.request(method, path, content=body, headers=_headers(options))
        except httpx.TransportError as error:
            raise unreachable(error, self._base_url) from None
        return reply_of(response, kind)


def _headers(options: Options) -> dict[str, str]:
    headers = {"content-type": "application/json"}
    return headers | {"x-request-id": options.request_id} if options.request_id else headers
