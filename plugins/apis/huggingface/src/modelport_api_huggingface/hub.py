"""The Inference API's routes, /models/{id} and /models/{id}/pipeline/{task}: every task of every model."""

from __future__ import annotations

from typing import Any

import msgspec
from litestar import Response, get, post

from modelport.contract.api import convert_fields, model_id, model_route
from modelport.contract.errors import InvalidRequest, WrongTask
from modelport.contract.host import ModelInfo
from modelport_api_huggingface import tei, tgi
from modelport_api_huggingface.answer import AnyRequest, Call, HostDependency, json_answer
from modelport_api_huggingface.choice import encodes, generates, known
from modelport_api_huggingface.generation import GenerateBody
from modelport_api_huggingface.payload import Payload, read_payload
from modelport_api_huggingface.requests import fits, request_of
from modelport_api_huggingface.results import answer_result

__all__ = ["HANDLERS", "answer_task", "info_of"]

_SIMILARITY = "sentence-similarity"
"""A task that every model does that embeds texts, whether or not its skill has it as a task of its own."""


@post(model_route("/models"), status_code=200, request_max_body_size=None, summary="Any task of a model", tags=["hub"])
async def infer(request: AnyRequest, host: HostDependency) -> Response[Any]:
    """The task that the body fits, the model's own first."""
    call = Call(request, host)
    payload = await read_payload(request)
    return await answer_task(call, model_id(**request.path_params), payload)


@post(
    model_route("/models", "/pipeline/{task:str}"),
    status_code=200,
    request_max_body_size=None,
    summary="One task of a model",
    tags=["hub"],
)
async def infer_task(request: AnyRequest, host: HostDependency) -> Response[Any]:
    """The task that the path names."""
    call = Call(request, host)
    payload = await read_payload(request)
    path = dict(request.path_params)
    task = path.pop("task")
    return await answer_task(call, model_id(**path), payload, task)


async def answer_task(
    call: Call, name: str, payload: Payload, task_name: str | None = None, among: tuple[str, ...] = ()
) -> Response[Any]:
    """The answer of a model to a body.

    Args:
        call: The request.
        name: The model.
        payload: The body.
        task_name: The task, if it was named.
        among: The tasks that may be meant; by default all of the model's.

    Raises:
        WrongTask: the model does not do that.
        PayloadTooLarge: the body has more beside its files than JSON may have.
    """
    info = await known(call, name)
    compares = task_name is None and not among and _compares(payload) and "feature-extraction" in info.tasks
    if task_name == _SIMILARITY or compares:
        payload.check_files()
        sent = {"inputs": payload.inputs, "parameters": payload.parameters, **payload.beside}
        return json_answer(await tei.similarities(call, name, convert_fields(sent, tei.SimilarityBody)), call.headers())
    tasks = call.host.tasks()
    offered = [each for each in info.tasks if each in tasks and (not among or each in among)]
    if task_name is not None and task_name not in info.tasks:
        raise WrongTask(f"The model '{name}' does not do '{task_name}'. It does: {', '.join(info.tasks)}.", param="task")
    if not offered:
        raise WrongTask(f"The model '{name}' does none of {', '.join(among)}. It does: {', '.join(info.tasks)}.", param="task")
    chosen = task_name or next((each for each in offered if fits(tasks[each], payload)), offered[0])
    task = tasks[chosen]
    if tgi.writes_text(task):
        if payload.is_file:
            raise InvalidRequest(f"The task '{chosen}' takes JSON, with Content-Type application/json.", param="inputs")
        payload.check_files()
        sent = {"inputs": payload.inputs, "parameters": payload.parameters, "stream": payload.stream, **payload.beside}
        return await tgi.answer_generation(call, name, chosen, convert_fields(sent, GenerateBody), as_list=not payload.stream)
    if payload.stream:
        raise InvalidRequest(f"The task '{chosen}' is not streamed here; leave 'stream' out.", param="stream")
    asked = request_of(task, payload)
    call.characters += _characters(asked)
    result = await call.run(chosen, name, asked)
    return answer_result(task, payload, asked, result, call.headers())


def _compares(payload: Payload) -> bool:
    return isinstance(payload.inputs, dict) and payload.inputs.keys() == {"source_sentence", "sentences"}


def _characters(value: Any) -> int:
    """How many characters of text a request holds."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, list | tuple):
        return sum(map(_characters, value))
    return _characters(getattr(value, "inputs", None)) if isinstance(value, msgspec.Struct) else 0


@get(model_route("/models", "/info"), summary="What is known of a model", tags=["hub"])
async def model_info(request: AnyRequest, host: HostDependency) -> Response[bytes]:
    """As TGI or TEI would tell it, by what the model does."""
    call = Call(request, host)
    info = await known(call, model_id(**request.path_params))
    return json_answer(info_of(info))


def info_of(info: ModelInfo) -> dict[str, Any]:
    """What is known of a model, in the form of the server that it is asked as."""
    if generates(info):
        return tgi.info_of(info)
    return tei.info_of(info) if encodes(info) else {"model_id": info.id, "model_pipeline_tag": next(iter(info.tasks), None)}


@get(model_route("/models", "/health"), summary="Whether a model can be asked", tags=["hub"])
async def model_health(request: AnyRequest, host: HostDependency) -> Response[bytes]:
    """200 if the model is there and has not failed."""
    call = Call(request, host)
    info = await known(call, model_id(**request.path_params))
    return Response(b"{}", media_type="application/json", status_code=503 if info.state == "failed" else 200)


HANDLERS = (infer, infer_task, model_info, model_health)
