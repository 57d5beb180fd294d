"""The routes of text-generation-inference, for the model that the configuration names or the only one that generates text."""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated, Any

import msgspec
from litestar import Response, get, post
from msgspec import Meta

from modelport.contract.api import decode_body
from modelport.contract.dialect import speaking
from modelport.contract.errors import InvalidRequest, UnsupportedParameter
from modelport.contract.host import DeltaStream, ModelInfo
from modelport.contract.task import Task
from modelport.tasks.text import GenerationRequest, GenerationResult, Message
from modelport.tasks.tokenization import TokenizationRequest, TokenizationResult
from modelport_api_huggingface.answer import AnyRequest, Call, HostDependency, json_answer
from modelport_api_huggingface.choice import GENERATING, root_of, task_of
from modelport_api_huggingface.generation import NAMES, GenerateBody, GenerateParams, answer_of
from modelport_api_huggingface.stream import event_stream

__all__ = ["HANDLERS", "answer_generation", "info_of", "tokenize", "writes_text"]


@post("/generate", status_code=200, summary="A text, continued", tags=["tgi"])
async def generate(request: AnyRequest, host: HostDependency) -> Response[Any]:
    """A text, continued; as events with `stream`."""
    call = Call(request, host)
    body = decode_body(await request.body(), GenerateBody)
    info = await root_of(call, GENERATING)
    return await answer_generation(call, info.id, task_of(info, GENERATING), body)


@post("/generate_stream", status_code=200, summary="A text, continued, as events", tags=["tgi"])
async def generate_stream(request: AnyRequest, host: HostDependency) -> Response[Any]:
    """A text, continued, as events."""
    call = Call(request, host)
    body = decode_body(await request.body(), GenerateBody)
    body.stream = True
    info = await root_of(call, GENERATING)
    return await answer_generation(call, info.id, task_of(info, GENERATING), body)


async def answer_generation(call: Call, model: str, task: str, body: GenerateBody, *, as_list: bool = False) -> Response[Any]:
    """The answer of a generation: events, an object, or a list of one."""
    params = body.parameters or GenerateParams()
    stream = bool(body.stream)
    params.check(stream)
    call.characters += len(body.inputs)
    with speaking(NAMES):
        prompt = await _truncated(call, model, body.inputs, params.truncate) if params.truncate else body.inputs
        asked = params.to_task(prompt, stream=stream)
        if stream:
            opened = await _opened(call, model, task, asked, params)
            ends = call.host.model(call.principal, opened.model).end_tokens
            return event_stream(opened, body, call.begun(opened.model), ends)
        result: GenerationResult = await call.run(task, model, asked)
        answer = answer_of(body, result.choices, call.usage.completion_tokens)
    return json_answer([answer] if as_list else answer, call.headers(generated=True))


async def _opened(call: Call, model: str, task: str, asked: GenerationRequest, params: GenerateParams) -> DeltaStream:
    """The stream. Where a backend names no tokens, and nobody asked for what is known of them, events carry text alone."""
    scope = call.request.scope
    try:
        return await call.host.stream(task, model, asked, call.principal, scope)
    except UnsupportedParameter as error:
        if error.param != "logprobs" or params.details or params.top_n_tokens:
            raise
        asked = msgspec.structs.replace(asked, logprobs=None)
        return await call.host.stream(task, model, asked, call.principal, scope)


async def _truncated(call: Call, model: str, text: str, most: int) -> list[int] | str:
    """The last tokens of a prompt that is longer than so many; TGI cuts at the left."""
    found: TokenizationResult = await call.run("tokenization", model, TokenizationRequest(inputs=text))
    ids = [token.id for token in found.results[0]]
    return ids[-most:] if len(ids) > most else text


# ------------------------------------------------------------------------------------------------------------- tokens


class ChatTokenizeBody(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A conversation to tokenise. `model` is ignored, as TGI does."""

    messages: Annotated[list[dict[str, Any]], Meta(min_length=1)]
    model: str | None = None
    tools: list[dict[str, Any]] | None = None


class TokenizeBody(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A text to tokenise; a request for generation, whose parameters say nothing here."""

    inputs: str
    parameters: Any = None
    add_special_tokens: bool = True


@post("/chat_tokenize", status_code=200, summary="A conversation's text and tokens", tags=["tgi"])
async def chat_tokenize(request: AnyRequest, host: HostDependency) -> Response[bytes]:
    """The text that the chat template makes of a conversation, and its tokens."""
    call = Call(request, host)
    body = decode_body(await request.body(), ChatTokenizeBody)
    info = await root_of(call, GENERATING)
    messages = [_message(each, place) for place, each in enumerate(body.messages)]
    # The model's own way to a prompt, of which nothing is generated.
    asked = GenerationRequest(messages=messages, tools=body.tools, max_new_tokens=0, echo=True)
    result: GenerationResult = await call.run(task_of(info, GENERATING), info.id, asked)
    text = result.choices[0].text
    tokens = await _tokens(call, info.id, TokenizeBody(inputs=text, add_special_tokens=False))
    return json_answer({"tokenize_response": tokens, "templated_text": text}, call.headers(generated=True))


def _message(fields: dict[str, Any], place: int) -> Message:
    try:
        return msgspec.convert(fields, Message)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"messages.{place} is wrong: {error}.", param=f"messages.{place}") from None


async def tokenize(call: Call, info: ModelInfo, text: bytes) -> Response[bytes]:
    """The tokens of a text, in TGI's form: one list, and a place for each."""
    return json_answer(await _tokens(call, info.id, decode_body(text, TokenizeBody)), call.headers(generated=True))


async def _tokens(call: Call, model: str, body: TokenizeBody) -> list[dict[str, Any]]:
    asked = TokenizationRequest(inputs=body.inputs, add_special_tokens=body.add_special_tokens)
    result: TokenizationResult = await call.run("tokenization", model, asked)
    call.characters += len(body.inputs)
    return [
        {"id": each.id, "text": each.text if each.start is not None else "", "start": each.start or 0, "stop": each.stop or 0}
        for each in result.results[0]
    ]


# --------------------------------------------------------------------------------------------------------------- info


@get("/ping", summary="Whether the server is there", tags=["tgi"])
async def ping(request: AnyRequest, host: HostDependency) -> Response[bytes]:
    """As /health, for SageMaker."""
    host.principal(request.scope)
    return json_answer({})


def info_of(info: ModelInfo) -> dict[str, Any]:
    """What TGI says of itself; null where this server has no such thing, or no bound."""
    longest = info.context_length
    return {
        "model_id": info.id,
        "model_sha": None,
        "model_pipeline_tag": info.tasks[0] if info.tasks else None,
        "max_concurrent_requests": None,
        "max_best_of": None,
        "max_stop_sequences": None,
        "max_input_tokens": None if longest is None else longest - 1,
        "max_total_tokens": longest,
        "validation_workers": None,
        "max_client_batch_size": None,
        "router": "modelport",
        "version": version("modelport"),
        "sha": None,
        "docker_label": None,
    }


def writes_text(task: Task[Any, Any, Any]) -> bool:
    """Whether a task is asked as TGI is."""
    return task.request is GenerationRequest


HANDLERS = (generate, generate_stream, chat_tokenize, ping)
