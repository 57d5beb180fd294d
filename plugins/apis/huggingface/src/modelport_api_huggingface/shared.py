"""Paths that TGI, TEI and the Inference API share: what the model does decides whose they are."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Annotated, Any

import msgspec
from litestar import Response, get, post
from msgspec import Meta

from modelport.contract.api import decode_body
from modelport.contract.errors import ModelportError, WrongTask
from modelport.contract.host import ModelInfo
from modelport_api_huggingface import hub, tei, tgi
from modelport_api_huggingface.answer import AnyRequest, Call, HostDependency, json_answer
from modelport_api_huggingface.choice import GENERATING, encodes, generates, root_of, task_of
from modelport_api_huggingface.errors import error_reply
from modelport_api_huggingface.generation import GenerateBody
from modelport_api_huggingface.payload import read_payload

__all__ = ["HANDLERS"]

_NO_TASKS = frozenset({"tokenization", "detokenization"})
"""What many models do beside their own task."""


def _every_task(call: Call) -> tuple[str, ...]:
    return tuple(task for task in call.host.tasks() if task not in _NO_TASKS)


async def _as_tei(answer: Awaitable[Response[Any]]) -> Response[Any]:
    """The answer; what goes wrong is told in TEI's words, which the path alone does not call for."""
    try:
        return await answer
    except ModelportError as error:
        reply = error_reply(error, "tei")
        return Response(reply.body, media_type=reply.media_type, status_code=reply.status, headers=reply.headers)


@post(
    ["/", "/invocations"], status_code=200, request_max_body_size=None, summary="The model's own task", tags=["tgi", "tei", "hub"]
)
async def own(request: AnyRequest, host: HostDependency) -> Response[Any]:
    """The model's own task: text as TGI writes it, in a list of one or as events; what TEI answers at its own route for the task;
    or, if the model is of another kind or the body holds `parameters`, what the Inference API answers."""
    call = Call(request, host)
    info = await root_of(call, _every_task(call))
    if generates(info):
        body = decode_body(await request.body(), GenerateBody)
        return await tgi.answer_generation(call, info.id, task_of(info, GENERATING), body, as_list=not body.stream)
    if not encodes(info):
        return await hub.answer_task(call, info.id, await read_payload(request))
    return await _as_tei(_encoded(call, info))


async def _encoded(call: Call, info: ModelInfo) -> Response[Any]:
    text = await call.request.body()
    if "parameters" in decode_body(text, dict[str, msgspec.Raw]):
        return await hub.answer_task(call, info.id, await read_payload(call.request))
    return await tei.answer_own(call, info, text)


class VertexBody(msgspec.Struct, forbid_unknown_fields=True):
    """Vertex AI's envelope around several bodies."""

    instances: Annotated[list[msgspec.Raw], Meta(min_length=1, max_length=64)]
    parameters: Any = None


@post("/vertex", status_code=200, summary="The model's own task, for Vertex AI", tags=["tgi", "tei"])
async def vertex(request: AnyRequest, host: HostDependency) -> Response[Any]:
    """The answers to `instances`, in order, as `predictions`."""
    call = Call(request, host)
    info = await root_of(call, _every_task(call))
    answer = _predictions(call, info)
    return await (answer if generates(info) else _as_tei(answer))


async def _predictions(call: Call, info: ModelInfo) -> Response[bytes]:
    if not generates(info) and not encodes(info):
        raise WrongTask(f"'{info.id}' does {', '.join(info.tasks)}; ask it at /models/{info.id}.", param="task")
    found = []
    for instance in decode_body(await call.request.body(), VertexBody).instances:
        if generates(info):
            body = decode_body(bytes(instance), GenerateBody)
            body.stream = False
            response = await tgi.answer_generation(call, info.id, task_of(info, GENERATING), body)
        else:
            response = await tei.answer_own(call, info, bytes(instance))
        found.append(msgspec.Raw(response.content))
    return json_answer({"predictions": found}, call.headers(generated=generates(info)))


@post("/tokenize", status_code=200, summary="Texts to tokens", tags=["tgi", "tei"])
async def tokenize(request: AnyRequest, host: HostDependency) -> Response[Any]:
    """The tokens of a text: one list for a model that generates, a list for each text for the others."""
    call = Call(request, host)
    info = await root_of(call, ("tokenization",))
    text = await request.body()
    return await (tgi.tokenize(call, info, text) if generates(info) else _as_tei(tei.tokenize(call, info, text)))


@get("/info", summary="What is known of the model", tags=["tgi", "tei"])
async def info(request: AnyRequest, host: HostDependency) -> Response[bytes]:
    """What TGI or TEI would tell of the model."""
    call = Call(request, host)
    return json_answer(hub.info_of(await root_of(call, _every_task(call))))


HANDLERS = (own, vertex, tokenize, info)
