"""The routes. They decode, ask the host, and encode; they know no model."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
from litestar import Request, Response, get, post
from litestar.di import NamedDependency
from litestar.params import SkipValidation

from modelport.contract.api import decode_body, model_id, model_route
from modelport.contract.errors import UnsupportedParameter, WrongTask
from modelport.contract.host import AUTO, Host, ModelInfo, Principal
from modelport_api_native.encoding import encoder, json_reply
from modelport_api_native.envelope import read_envelope, read_request
from modelport_api_native.events import event_stream

__all__ = ["HANDLERS"]

ADMIN = {"scope": "admin"}
AnyRequest: TypeAlias = Request[Any, Any, Any]
HostDependency: TypeAlias = NamedDependency[
    SkipValidation[Host]
]  # to look through a protocol's methods takes longer than to call one

_FOLDER = re.compile(r"[/~.\\]|[A-Za-z]:[/\\]|[^/:]+/[^/:]+/")  # no id of the Hub: those hold one slash, inside


@post(model_route("/v1/infer"), status_code=200)
async def infer(request: AnyRequest, host: HostDependency) -> Response[bytes]:
    """Any task of any model, by the task's own request."""
    principal = host.principal(request.scope)
    model = model_id(**request.path_params)
    envelope, prefix = read_envelope(await request.body())
    task_name = await _chosen_task(host, principal, model, envelope.task)
    task = host.tasks()[task_name]
    if envelope.stream and task.delta is None:
        raise UnsupportedParameter(f"The task '{task_name}' does not stream. Leave `stream` out.", param="stream")
    asked = read_request(envelope, task, prefix)
    options = envelope.for_host(request.scope["modelport.request_id"])  # type: ignore[typeddict-item]
    if envelope.stream:
        stream = await host.stream(task_name, model, asked, principal, request.scope, options)
        return event_stream(stream, task_name, encoder(envelope.arrays))
    reply = await host.run(task_name, model, asked, principal, request.scope, options)
    answer = {
        "model": reply.model,
        "task": task_name,
        "result": reply.result,
        "usage": reply.usage,
        "timings": reply.timings,
    }
    return json_reply(answer, envelope.arrays)


async def _chosen_task(host: Host, principal: Principal, model: str, asked: str | None) -> str:
    """The task to do: the model's first, unless another of its tasks is asked for."""
    if asked is not None and model == AUTO:
        if asked not in host.tasks():
            raise WrongTask(f"No skill here does '{asked}'. Tasks: {', '.join(host.tasks())}.", param="task")
        return asked
    default = await host.default_task(principal, model)  # after it all of the model's tasks are known
    if asked is None:
        return default
    served = host.model(principal, model).tasks
    if asked not in served:
        raise WrongTask(f"The model '{model}' does not do '{asked}'. It does: {', '.join(served)}.", param="task")
    return asked


@get("/v1/catalog")
async def catalog(request: AnyRequest, host: HostDependency) -> Response[bytes]:
    """Every model that the caller may use, and every task with its JSON Schemas."""
    tasks = {
        name: {"summary": task.summary, "streams": task.delta is not None, "schema": task.schema()}
        for name, task in host.tasks().items()
    }
    principal = host.principal(request.scope)
    return json_reply({"models": [_shown(model, principal) for model in host.models(principal)], "tasks": tasks})


@get(model_route("/v1/models", "/info"))
async def info(request: AnyRequest, host: HostDependency) -> Response[bytes]:
    """What is known of a model, and its state."""
    principal = host.principal(request.scope)
    return json_reply(_shown(host.model(principal, model_id(**request.path_params)), principal))


def _shown(model: ModelInfo, principal: Principal) -> ModelInfo:
    """The model as the caller may see it: where a folder lies on this machine is for admins, its name for everybody."""
    if "admin" in principal.scopes or not _FOLDER.match(model.source):
        return model
    name = re.split(r"[/\\]", model.source.rstrip("/\\"))[-1]
    folder = str(Path(model.source).expanduser().absolute())
    return msgspec.structs.replace(model, source=name, error=model.error.replace(folder, name))


@get(model_route("/v1/models", "/placement"))
async def placement(request: AnyRequest, host: HostDependency) -> Response[bytes]:
    """Where the model runs and why: every candidate with its reason."""
    return json_reply(host.placement(host.principal(request.scope), model_id(**request.path_params)))


@post(model_route("/v1/models", "/load"), status_code=200, opt=ADMIN)
async def load(request: AnyRequest, host: HostDependency) -> Response[bytes]:
    """Loads a model; answers when it is ready."""
    return json_reply(await host.load(host.principal(request.scope), model_id(**request.path_params)))


@post(model_route("/v1/models", "/unload"), status_code=200, opt=ADMIN)
async def unload(request: AnyRequest, host: HostDependency) -> Response[bytes]:
    """Unloads a model once its running requests are done."""
    return json_reply(await host.unload(host.principal(request.scope), model_id(**request.path_params)))


@get("/v1/hardware", opt=ADMIN)
async def hardware(request: AnyRequest, host: HostDependency) -> Response[bytes]:
    """Every backend with its devices, or the reason why it has none."""
    return json_reply({"backends": host.hardware(host.principal(request.scope))})


@get("/v1/recommendations")
async def recommendations(request: AnyRequest, host: HostDependency, task: str | None = None) -> Response[bytes]:
    """What the model `auto` would be, task by task, and what that rests on."""
    return json_reply({"recommendations": host.recommendations(host.principal(request.scope), task)})


class Feedback(msgspec.Struct, forbid_unknown_fields=True):
    """What a caller thinks of an answer: `request_id` is in its header `x-request-id`, `score` is from 0 (useless) to 1."""

    request_id: str
    score: float


@post("/v1/feedback", status_code=204)
async def feedback(request: AnyRequest, host: HostDependency) -> None:
    """Takes a rating, from which `auto` learns."""
    rating = decode_body(await request.body(), Feedback)
    host.rate(host.principal(request.scope), rating.request_id, rating.score)


@get("/v1/plugins", opt=ADMIN)
async def plugins(request: AnyRequest, host: HostDependency) -> Response[bytes]:
    """Every installed plugin with its state and the reason of it."""
    return json_reply({"plugins": host.plugins(host.principal(request.scope))})


HANDLERS = (infer, catalog, info, placement, load, unload, hardware, recommendations, feedback, plugins)
