"""A host whose tasks and answers a test chooses, and the surfaces in front of it as the server mounts them."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx
import msgspec
import numpy as np

from modelport.contract.errors import InvalidRequest
from modelport.contract.host import ModelInfo
from modelport.contract.task import Task
from modelport.core.config.settings import Settings
from modelport.core.observe.metrics import Metrics
from modelport.core.server.asgi import build_asgi
from modelport.tasks.text import EmbeddingRequest, EmbeddingResult
from modelport.tasks.tokenization import (
    DETOKENIZATION,
    TOKENIZATION,
    DetokenizationRequest,
    DetokenizationResult,
    TokenizationRequest,
    TokenizationResult,
    TokenSpan,
)
from modelport.testing import answers
from modelport.testing.fake_host import FakeHost
from modelport_api_huggingface import HuggingFace
from modelport_api_native import Native
from modelport_api_openai import OpenAI

__all__ = ["MODELS", "TASKS", "answer", "fake_host", "official", "served"]

TASKS = (*answers.TASKS, TOKENIZATION, DETOKENIZATION)
MODELS = tuple(
    ModelInfo(id=info.id, tasks=(*info.tasks, "tokenization", "detokenization"), aliases=info.aliases, context_length=64)
    for info in answers.MODELS
)


def answer(task: str, request: Any, stream: bool = False) -> Any:
    """As the kit's, with a token for each character. Refuses what skills refuse."""
    if getattr(request, "inputs", True) == []:
        raise InvalidRequest("inputs is empty.", param="inputs")
    if isinstance(request, TokenizationRequest):
        texts = [request.inputs] if isinstance(request.inputs, str) else request.inputs
        start = [TokenSpan(id=1, text="<s>", special=True)] if request.add_special_tokens else []
        spans = [
            [*start, *(TokenSpan(id=ord(c), text=c, special=False, start=i, stop=i + 1) for i, c in enumerate(text))]
            for text in texts
        ]
        return TokenizationResult(results=spans)
    if isinstance(request, DetokenizationRequest):
        lists = request.ids if isinstance(request.ids[0], list) else [request.ids]
        if any(not 0 <= each < 128 for ids in lists for each in ids):
            raise InvalidRequest("A token id is outside the vocabulary.", param="ids")
        return DetokenizationResult(results=["".join(map(chr, ids)) for ids in lists])
    if isinstance(request, EmbeddingRequest):
        count = 1 if isinstance(request.inputs, str) or isinstance(request.inputs[0], int) else len(request.inputs)
        vectors = np.eye(4, dtype=np.float32)[:count, : request.dimensions]
        return EmbeddingResult(embeddings=vectors)
    return answers.answer(task, request, stream)


def fake_host(
    *tasks: Task[Any, Any, Any], answer: Any = answer, models: tuple[ModelInfo, ...] | None = None, keys: Any = None
) -> FakeHost:
    """A host with the kit's models, or with one model, `m`, that does `tasks`."""
    if tasks:
        return FakeHost(models or [ModelInfo(id="m", tasks=tuple(task.name for task in tasks))], tasks, answer, keys)
    return FakeHost(models or MODELS, TASKS, answer, keys)


@asynccontextmanager
async def served(host: FakeHost, *, limits: Mapping[str, int] | None = None, **options: Any) -> Any:
    """A plain client of a server with all three surfaces."""
    settings = msgspec.convert({"limits": limits or {}}, Settings)

    class Registry:
        apis: Mapping[str, Any] = {"openai": OpenAI(), "native": Native(), "huggingface": HuggingFace(options)}

    app = build_asgi(host, Registry(), settings, Metrics(), lambda: "ready")
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://testserver") as client:
        yield client


@asynccontextmanager
async def official(http: httpx.AsyncClient, path: str) -> Any:
    """The Hub's own client of the model at `path` of the server that `http` is connected to."""
    from huggingface_hub import AsyncInferenceClient, set_async_client_factory
    from huggingface_hub.utils._http import default_async_client_factory

    set_async_client_factory(lambda: httpx.AsyncClient(transport=http._transport))
    try:
        async with AsyncInferenceClient(f"http://testserver{path}", provider="hf-inference") as client:
            yield client
    finally:
        set_async_client_factory(default_async_client_factory)
