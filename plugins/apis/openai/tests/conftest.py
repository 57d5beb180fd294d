"""A host that answers as a test tells it, the surface in front of it, and two clients: plain HTTP and OpenAI's own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

import httpx
import msgspec
import openai
import pytest
from litestar import Litestar, Request, Response
from litestar.di import Provide

from modelport.contract import ModelInfo, ModelportError, Options, Reply, Timings, Usage
from modelport.tasks.audio import AUTOMATIC_SPEECH_RECOGNITION
from modelport.tasks.synthesis import TEXT_TO_SPEECH
from modelport.tasks.text import FEATURE_EXTRACTION, TEXT_GENERATION, TEXT_RANKING, GenerationDelta
from modelport.testing.fake_host import FakeHost, FakePrincipal
from modelport_api_openai import OpenAI

TASKS = ("text-generation", "text-ranking", "automatic-speech-recognition", "text-to-speech")
MODELS = [
    ModelInfo(id="tiny", tasks=TASKS, created=1_700_000_000, owned_by="someone", context_length=64),
    ModelInfo(id="org/tiny", tasks=("feature-extraction",), aliases=("small",)),
]


class ScriptedStream:
    """A stream that follows a script of deltas, errors to raise, and functions to await; `gone` is set once it is closed."""

    def __init__(self, model: str, script: Sequence[Any], usage: Usage) -> None:
        self.model, self.usage, self.timings = model, usage, Timings()
        self.gone = asyncio.Event()
        self._script = list(script)

    @property
    def closed(self) -> bool:
        return self.gone.is_set()

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        while self._script:
            step = self._script.pop(0)
            if isinstance(step, Exception):
                raise step
            if not callable(step):
                return step
            await step()
        raise StopAsyncIteration

    async def aclose(self) -> None:
        self.gone.set()


class ScriptedHost(FakeHost):
    """Answers with `answers[task]`: a result, an error, a stream's script, or a function of the request that gives one.

    A plain request gets the sum of a script's deltas. `usage` is what every answer took.
    """

    def __init__(self) -> None:
        super().__init__(
            MODELS, [FEATURE_EXTRACTION, TEXT_GENERATION, TEXT_RANKING, AUTOMATIC_SPEECH_RECOGNITION, TEXT_TO_SPEECH], self._tell
        )
        self.answers: dict[str, Any] = {}
        self.usage = Usage(prompt_tokens=5, completion_tokens=3)
        self.scopes: list[Any] = []

    @property
    def requests(self) -> list[Any]:
        return [call.request for call in self.calls]

    @property
    def request(self) -> Any:
        assert len(self.calls) == 1
        return self.calls[0].request

    def _tell(self, task: str, request: Any, stream: bool = False) -> Any:
        answer = self.answers[task]
        answer = answer(request) if callable(answer) else answer
        if isinstance(answer, Exception):
            raise answer
        return self._tasks[task].join(answer) if isinstance(answer, list) and not stream else answer

    async def run(self, task: str, model: str, request: Any, principal: Any, scope: Any = None, *rest: Any) -> Reply[Any]:
        self.scopes.append(scope)
        return msgspec.structs.replace(await super().run(task, model, request, principal, scope, *rest), usage=self.usage)

    async def stream(self, task: str, model: str, request: Any, principal: Any, scope: Any = None, *rest: Any) -> ScriptedStream:
        self.scopes.append(scope)
        info = self._receive(task, model, request, principal, Options(), stream=True)
        self.streams.append(ScriptedStream(info.id, self._tell(task, request, stream=True), self.usage))
        return self.streams[-1]


def application(host: FakeHost) -> Any:
    """The surface as the server mounts it: behind authentication, with its routes, the host, and its errors."""
    api = OpenAI()

    def on_error(request: Request[Any, Any, Any], error: ModelportError) -> Response[bytes]:
        reply = api.error(error, request.url.path)
        assert reply is not None
        return Response(reply.body, status_code=reply.status, media_type=reply.media_type, headers=reply.headers)

    app = Litestar(
        route_handlers=api.routes(),
        dependencies={"host": Provide(lambda: host, sync_to_thread=False)},
        exception_handlers={ModelportError: on_error},
        openapi_config=None,
    )

    async def authenticated(scope: Any, receive: Any, send: Any) -> None:
        scope["modelport.principal"] = FakePrincipal(scopes=frozenset({"infer"}))
        await app(scope, receive, send)

    return authenticated


@pytest.fixture
def host() -> ScriptedHost:
    return ScriptedHost()


@pytest.fixture
def app(host: FakeHost) -> Any:
    return application(host)


@pytest.fixture
async def http(app: Any) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        yield client


@pytest.fixture
async def sdk(app: Any) -> AsyncIterator[openai.AsyncOpenAI]:
    transport = httpx.AsyncClient(transport=httpx.ASGITransport(app))
    async with openai.AsyncOpenAI(base_url="http://test/v1", api_key="k", http_client=transport, max_retries=0) as client:
        yield client


@pytest.fixture
def refused(http: httpx.AsyncClient) -> Callable[..., Any]:
    """Posts a body, and gives the error object of the 400 that it must be."""

    async def post(path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        response = await http.post(path, json=body)
        assert response.status_code == 400, response.text
        error = response.json()["error"]
        assert set(error) == {"message", "type", "param", "code"}
        return dict(error)

    return post


@pytest.fixture
def words() -> Callable[..., list[GenerationDelta]]:
    """Deltas of one choice, one per word, the last of which ends it."""

    def deltas(*texts: str, index: int = 0, finish: str = "stop") -> list[GenerationDelta]:
        return [*(GenerationDelta(index=index, text=text) for text in texts), GenerationDelta(index=index, finish_reason=finish)]

    return deltas
