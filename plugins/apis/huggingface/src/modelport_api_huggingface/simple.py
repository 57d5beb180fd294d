"""POST /v1/generate, /v1/embed, /v1/classify and /v1/detect: one kind of task each, the model in the body."""

from __future__ import annotations

from typing import Any

import msgspec
from litestar import Response, post

from modelport.contract.errors import InvalidRequest
from modelport_api_huggingface.answer import AnyRequest, Call, HostDependency
from modelport_api_huggingface.choice import root_of
from modelport_api_huggingface.hub import answer_task
from modelport_api_huggingface.payload import read_payload

__all__ = ["HANDLERS"]

_GENERATE = (
    "text-generation",
    "image-text-to-text",
    "text2text-generation",
    "summarization",
    "translation",
    "image-to-text",
)
_EMBED = ("feature-extraction", "image-feature-extraction")
_CLASSIFY = (
    "text-classification",
    "token-classification",
    "zero-shot-classification",
    "image-classification",
    "zero-shot-image-classification",
    "video-classification",
    "audio-classification",
    "zero-shot-audio-classification",
)
_DETECT = ("object-detection", "zero-shot-object-detection")


async def _answer(request: AnyRequest, host: Any, tasks: tuple[str, ...]) -> Response[Any]:
    """The answer of the model that the body names, or of the only one that does one of `tasks`."""
    call = Call(request, host)
    payload = await read_payload(request)
    model = payload.beside.get("model")
    if model is not None and not isinstance(model, str):
        raise InvalidRequest("The field 'model' is wrong: it must be the name of a model.", param="model")
    beside = {name: value for name, value in payload.beside.items() if name != "model"}
    payload = msgspec.structs.replace(payload, beside=beside)
    name = model or (await root_of(call, tasks)).id
    return await answer_task(call, name, payload, among=tasks)


@post("/v1/generate", status_code=200, request_max_body_size=None, summary="Text out of text or images", tags=["simple"])
async def generate(request: AnyRequest, host: HostDependency) -> Response[Any]:
    """Text, generated; as events with `stream`."""
    return await _answer(request, host, _GENERATE)


@post("/v1/embed", status_code=200, request_max_body_size=None, summary="Texts or images to vectors", tags=["simple"])
async def embed(request: AnyRequest, host: HostDependency) -> Response[Any]:
    """Vectors."""
    return await _answer(request, host, _EMBED)


@post("/v1/classify", status_code=200, request_max_body_size=None, summary="Anything to labels", tags=["simple"])
async def classify(request: AnyRequest, host: HostDependency) -> Response[Any]:
    """Labels with scores."""
    return await _answer(request, host, _CLASSIFY)


@post("/v1/detect", status_code=200, request_max_body_size=None, summary="Objects in images", tags=["simple"])
async def detect(request: AnyRequest, host: HostDependency) -> Response[Any]:
    """Objects with scores and boxes."""
    return await _answer(request, host, _DETECT)


HANDLERS = (generate, embed, classify, detect)
