"""Paths that TGI, TEI and the Inference API share: what the model does decides whose they are."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Annotated, Any

import msgspec
from litestar import Response, get, post
from msgspec import Meta

from modelport.contract.api import decode_body
from modelport.contract.errors import ModelportError, UnsupportedParameter, WrongTask
from modelport.contract.host import ModelInfo
from modelport_api_huggingface import hub, tei, tgi
from modelport_api_huggingface.answer import AnyRequest, Call, HostDependency, json_answer
from modelport_api_huggingface.choice import GENERATING, encodes, generates, root_of, task_of
from modelport_api_huggingface.errors import error_reply
from modelport_api_huggingface.forward import CHAT, COMPLETIONS, Forwarded, asked
from modelport_api_huggingface.generation import GenerateBody
from modelport_api_huggingface.payload import read_payload, read_text

__all__ = ["HANDLERS"]

_NO_TASKS = frozenset({"tokenization", "detokenization"})
"""What many models do beside their own task."""

Fields = dict[str, msgspec.Raw]


def _every_task(call: Call) -> tuple[str, ...]:
    return tuple(task for task in call.host.tasks() if task not in _NO_TASKS)


async def _as_tei(answer: Awaitable[Response[Any]]) -> Response[Any]:
    """The answer; what goes wrong is told in TEI's words, which the path alone does not call for."""
    try:
        return await answer
    except ModelportError as error:
        reply = error_reply(error, "tei")
        return Response(reply.body, media_type=reply.media_type, status_code=reply.status, headers=reply.headers)


@post("/", status_code=200, request_max_body_size=None, summary="The model's own task", tags=["tgi", "tei", "hub"])
async def own(request: AnyRequest, host: HostDependency) -> Response[Any]:
    """The model's own task: text as TGI writes it, in a list of one or as events; what TEI answers at its own route for the task;
    or, if the model is of another kind or the body holds `parameters`, what the Inference API answers."""
    call = Call(request, host)
    return await _own(call, await root_of(call, _every_task(call)))


@post("/invocations", status_code=200, request_max_body_size=None, summary="The same, for SageMaker", tags=["tgi", "tei", "hub"])
async def invocations(request: AnyRequest, host: HostDependency) -> Response[Any]:
    """As POST /; a body with `messages` or `prompt` is OpenAI's, and so is its answer."""
    call = Call(request, host)
    info = await root_of(call, _every_task(call))
    if generates(info):
        fields = decode_body(await read_text(request), Fields)
        if path := _openai_path(fields):
            return Forwarded(request, path, msgspec.json.encode({**fields, "model": info.id}))
    return await _own(call, info)


def _openai_path(fields: Fields) -> str | None:
    return CHAT if "messages" in fields else COMPLETIONS if "prompt" in fields else None


async def _own(call: Call, info: ModelInfo) -> Response[Any]:
    if generates(info):
        body = decode_body(await read_text(call.request), GenerateBody)
        return await tgi.answer_generation(call, info.id, task_of(info, GENERATING), body, as_list=not body.stream)
    if not encodes(info):
        return await hub.answer_task(call, info.id, await read_payload(call.request))
    return await _as_tei(_encoded(call, info))


async def _encoded(call: Call, info: ModelInfo) -> Response[Any]:
    text = await read_text(call.request)
    if "parameters" in decode_body(text, Fields):
        return await hub.answer_task(call, info.id, await read_payload(call.request))
    return await tei.answer_own(call, info, text)


# ------------------------------------------------------------------------------------------------------------- vertex


class VertexBody(msgspec.Struct, forbid_unknown_fields=True):
    """Vertex AI's envelope around several bodies."""

    instances: Annotated[list[msgspec.Raw], Meta(min_length=1, max_length=64)]
    parameters: Any = None


@post("/vertex", status_code=200, summary="The model's own task, for Vertex AI", tags=["tgi", "tei"])
async def vertex(request: AnyRequest, host: HostDependency) -> Response[Any]:
    """The answers to `instances`, in order, as `predictions`: texts, or what TEI answers."""
    call = Call(request, host)
    info = await root_of(call, _every_task(call))
    answer = _predictions(call, info)
    return await (answer if generates(info) else _as_tei(answer))


async def _predictions(call: Call, info: ModelInfo) -> Response[bytes]:
    if not generates(info) and not encodes(info):
        raise WrongTask(f"'{info.id}' does {', '.join(info.tasks)}; ask it at /models/{info.id}.", param="task")
    body = decode_body(await call.request.body(), VertexBody)
    if body.parameters:
        raise UnsupportedParameter("parameters: they are those of each instance here; put them there.", param="parameters")
    predict = _text if generates(info) else _own_of_tei
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(predict(call, info, bytes(instance))) for instance in body.instances]
    except ExceptionGroup as errors:
        first = errors.exceptions[0]
        if isinstance(first, _Refused):
            return first.response
        raise first from None
    found = [task.result() for task in tasks]
    return json_answer({"predictions": found}, call.headers(generated=generates(info)))


async def _own_of_tei(call: Call, info: ModelInfo, instance: bytes) -> Any:
    return msgspec.Raw((await tei.answer_own(call, info, instance)).content)


async def _text(call: Call, info: ModelInfo, instance: bytes) -> str:
    """The text that is generated for an instance of TGI: a prompt, or a conversation."""
    fields = decode_body(instance, Fields)
    if "messages" in fields:
        return await _said(call, {**fields, "model": info.id, "stream": False})
    body = decode_body(instance, GenerateBody)
    body.stream = False
    response = await tgi.answer_generation(call, info.id, task_of(info, GENERATING), body)
    return str(msgspec.json.decode(response.content)["generated_text"])


async def _said(call: Call, fields: dict[str, Any]) -> str:
    """What the model says next in a conversation in OpenAI's form."""
    status, body = await asked(call.request, CHAT, fields)
    if status != 200:
        raise _Refused(Response(body, media_type="application/json", status_code=status))
    return str(msgspec.json.decode(body)["choices"][0]["message"]["content"] or "")


class _Refused(Exception):
    """A conversation that was not continued, with the response that says why."""

    def __init__(self, response: Response[bytes]) -> None:
        super().__init__()
        self.response = response


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


HANDLERS = (own, invocations, vertex, tokenize, info)
