"""Paths that TGI and TEI share: what the model does decides whose they are."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import msgspec
from litestar import Response, get, post
from msgspec import Meta

from modelport.contract.api import decode_body
from modelport.contract.errors import ModelportError
from modelport.contract.host import ModelInfo
from modelport_api_huggingface import tei, tgi
from modelport_api_huggingface.answer import AnyRequest, Call, HostDependency, json_answer
from modelport_api_huggingface.choice import ENCODING, GENERATING, generates, root_of, task_of
from modelport_api_huggingface.errors import error_reply
from modelport_api_huggingface.generation import GenerateBody

__all__ = ["HANDLERS"]

Own = Callable[[Call, ModelInfo, bytes], Awaitable[Response[Any]]]


async def _of_its_kind(call: Call, tasks: tuple[str, ...], generating: Own, encoding: Own, text: bytes) -> Response[Any]:
    """The answer of the model's own kind of server, and its errors."""
    info = await root_of(call, tasks)
    if generates(info):
        return await generating(call, info, text)
    try:
        return await encoding(call, info, text)
    except ModelportError as error:
        reply = error_reply(error, "tei")
        return Response(reply.body, media_type=reply.media_type, status_code=reply.status, headers=reply.headers)


async def _generated(call: Call, info: ModelInfo, text: bytes) -> Response[Any]:
    body = decode_body(text, GenerateBody)
    return await tgi.answer_generation(call, info.id, task_of(info, GENERATING), body, as_list=not body.stream)


@post(["/", "/invocations"], status_code=200, summary="The model's own task", tags=["tgi", "tei"])
async def own(request: AnyRequest, host: HostDependency) -> Response[Any]:
    """The model's own task: TGI's text in a list of one, or as events; or what TEI answers at its own route for it."""
    call = Call(request, host)
    return await _of_its_kind(call, (*GENERATING, *ENCODING), _generated, tei.answer_own, await request.body())


class VertexBody(msgspec.Struct, forbid_unknown_fields=True):
    """Vertex AI's envelope around several bodies."""

    instances: Annotated[list[dict[str, Any]], Meta(min_length=1, max_length=64)]
    parameters: Any = None


@post("/vertex", status_code=200, summary="The model's own task, for Vertex AI", tags=["tgi", "tei"])
async def vertex(request: AnyRequest, host: HostDependency) -> Response[Any]:
    """The answers to `instances`, in order, as `predictions`."""
    call = Call(request, host)

    async def answers(answer: Own, info: ModelInfo, text: bytes) -> Response[bytes]:
        found = []
        for instance in decode_body(text, VertexBody).instances:
            response = await answer(call, info, msgspec.json.encode(instance))
            found.append(msgspec.Raw(response.content))
        return json_answer({"predictions": found}, call.headers(generated=generates(info)))

    async def generated(call: Call, info: ModelInfo, text: bytes) -> Response[Any]:
        body = decode_body(text, GenerateBody)
        body.stream = False
        return await tgi.answer_generation(call, info.id, task_of(info, GENERATING), body)

    async def generating(call: Call, info: ModelInfo, text: bytes) -> Response[Any]:
        return await answers(generated, info, text)

    async def encoding(call: Call, info: ModelInfo, text: bytes) -> Response[Any]:
        return await answers(tei.answer_own, info, text)

    return await _of_its_kind(call, (*GENERATING, *ENCODING), generating, encoding, await request.body())


@post("/tokenize", status_code=200, summary="Texts to tokens", tags=["tgi", "tei"])
async def tokenize(request: AnyRequest, host: HostDependency) -> Response[Any]:
    """The tokens of a text: one list for a model that generates, a list for each text for the others."""
    call = Call(request, host)
    return await _of_its_kind(call, ("tokenization",), tgi.tokenize, tei.tokenize, await request.body())


@get("/info", summary="What is known of the model", tags=["tgi", "tei"])
async def info(request: AnyRequest, host: HostDependency) -> Response[bytes]:
    """What TGI or TEI would tell of the model."""
    found = await root_of(Call(request, host), (*GENERATING, *ENCODING))
    return json_answer(tgi.info_of(found) if generates(found) else tei.info_of(found))


HANDLERS = (own, vertex, tokenize, info)
