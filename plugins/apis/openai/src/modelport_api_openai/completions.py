"""POST /v1/completions."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Mapping
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from litestar import Response, post
from msgspec import UNSET, Meta, UnsetType

from modelport.contract.api import decode_body
from modelport.contract.dialect import speaking
from modelport.contract.reply import Reply, Usage
from modelport.tasks.text import (
    MOST_LOGPROBS,
    GeneratedChoice,
    GenerationDelta,
    GenerationRequest,
    GenerationResult,
    TextToken,
)
from modelport_api_openai.answer import (
    FINGERPRINT,
    AnyRequest,
    HostDependency,
    TextInput,
    TokenUsage,
    add_usage,
    answer,
    fresh_id,
    split_input,
)
from modelport_api_openai.errors import invalid
from modelport_api_openai.finish import finished
from modelport_api_openai.logprobs import LegacyLogprobs, LegacyScribe
from modelport_api_openai.sampling import GENERATION_NAMES, GenerationBody
from modelport_api_openai.sse import all_of, event, event_stream, open_streams

__all__ = ["CompletionBody", "create_completion"]

Value = TypeVar("Value")

_DEFAULT_MAX_TOKENS = 16  # OpenAI's own


class CompletionBody(GenerationBody, kw_only=True, forbid_unknown_fields=True):
    """The request. Several prompts make n choices each, numbered prompt by prompt."""

    prompt: TextInput
    echo: bool | None = None
    logprobs: Annotated[int, Meta(ge=0, le=MOST_LOGPROBS)] | None = None
    best_of: int | None = None
    suffix: str | None = None

    def to_tasks(self) -> dict[str, GenerationRequest]:
        """One request per prompt, in the task's terms, by the prompt's place.

        Raises:
            InvalidRequest: for what contradicts itself or is not done here.
        """
        if self.suffix:
            raise invalid("suffix", "The field 'suffix' is not supported: text is not filled in before a suffix. Leave it out.")
        if self.best_of not in (None, 1, self.n or 1):
            raise invalid("best_of", "The field 'best_of' must equal 'n': every choice that is made is returned. Leave it out.")
        fields = {"max_new_tokens": _DEFAULT_MAX_TOKENS, **self.sampling()}
        if self.logprobs is not None:
            fields["logprobs"] = self.logprobs
        if self.echo:
            fields |= {"echo": True, "prompt_logprobs": self.logprobs}
        return {place: GenerationRequest(prompt=prompt, **fields) for place, prompt in split_input(self.prompt, "prompt").items()}


class CompletionChoice(msgspec.Struct, frozen=True, kw_only=True):
    """A choice, or what it gained."""

    index: int
    text: str
    logprobs: LegacyLogprobs | None = None
    finish_reason: Literal["stop", "length"] | None = None


class Completion(msgspec.Struct, frozen=True, kw_only=True):
    """An answer, or a chunk of one: they have one shape and one name."""

    id: str
    object: str = "text_completion"
    created: int
    model: str
    system_fingerprint: str = FINGERPRINT
    choices: list[CompletionChoice]
    usage: TokenUsage | UnsetType | None = UNSET


@post("/v1/completions", status_code=200, summary="Texts, continued", tags=["openai"])
async def create_completion(request: AnyRequest, host: HostDependency) -> Response[Any]:
    """Texts, continued."""
    started = time.perf_counter()
    principal = host.principal(request.scope)
    body = decode_body(await request.body(), CompletionBody)
    names = {**GENERATION_NAMES, "constraint": body.constraint_field}
    with speaking(names):
        tasks = body.to_tasks()
        if body.stream:
            return await _stream(request, host, body, tasks, names, started)
        scope = request.scope
        replies: list[Reply[GenerationResult]] = await all_of(
            [_about(place, host.run("text-generation", body.model, task, principal, scope)) for place, task in tasks.items()]
        )
        n = body.n or 1
        choices = [_choice(body, place * n, choice) for place, reply in enumerate(replies) for choice in reply.result.choices]
    completion = Completion(
        id=fresh_id("cmpl"),
        created=int(time.time()),
        model=replies[0].model,
        choices=choices,
        usage=_usage(body, add_usage([reply.usage for reply in replies])),
    )
    return answer(completion, started)


async def _stream(
    request: AnyRequest,
    host: HostDependency,
    body: CompletionBody,
    tasks: Mapping[str, GenerationRequest],
    names: Mapping[str, str],
    started: float,
) -> Response[Any]:
    principal, scope = host.principal(request.scope), request.scope
    streams = await open_streams(
        [_about(place, host.stream("text-generation", body.model, task, principal, scope)) for place, task in tasks.items()]
    )
    return event_stream(streams, CompletionWriter(body, streams[0].model), names, started)


async def _about(place: str, answer: Awaitable[Value]) -> Value:
    """The answer to the prompt at `place`, which what is wrong with that prompt names."""
    with speaking({"prompt": place}):
        return await answer


def _choice(body: CompletionBody, first: int, choice: GeneratedChoice) -> CompletionChoice:
    logprobs = None
    if body.logprobs is not None:
        logprobs = LegacyScribe(top=body.logprobs > 0).write(_tokens(choice))
    reason = finished(choice.finish_reason)
    return CompletionChoice(
        index=first + choice.index,
        text=choice.text,
        logprobs=logprobs,
        finish_reason="length" if reason == "length" else "stop",
    )


def _usage(body: CompletionBody, usage: Usage) -> TokenUsage:
    """The count that the caller sees: the token that an engine makes to score a prompt is not part of an answer of none."""
    return TokenUsage.of_generation(msgspec.structs.replace(usage, completion_tokens=0) if body.max_tokens == 0 else usage)


def _tokens(piece: GeneratedChoice | GenerationDelta) -> list[TextToken]:
    return [*(piece.prompt_tokens or ()), *(piece.tokens or ())]


class CompletionWriter:
    """Writes deltas as chunks of one completion."""

    def __init__(self, body: CompletionBody, model: str) -> None:
        self._id = fresh_id("cmpl")
        self._created = int(time.time())
        self._body = body
        self._model = model
        self._n = body.n or 1
        self._logprobs = body.logprobs
        self._with_usage = body.with_usage
        self._scribes: dict[int, LegacyScribe] = {}

    def delta(self, prompt: int, delta: GenerationDelta) -> bytes:
        index = prompt * self._n + delta.index
        logprobs = None
        if self._logprobs is not None:
            scribe = self._scribes.setdefault(index, LegacyScribe(top=self._logprobs > 0))
            logprobs = scribe.write(_tokens(delta))
        reason = None if delta.finish_reason is None else finished(delta.finish_reason)
        if not delta.text and logprobs is None and reason is None:
            return b""
        finish: Literal["stop", "length"] | None = None if reason is None else "length" if reason == "length" else "stop"
        choice = CompletionChoice(index=index, text=delta.text, logprobs=logprobs, finish_reason=finish)
        return self._event([choice], None if self._with_usage else UNSET)

    def usage(self, usage: Usage) -> bytes:
        return self._event([], _usage(self._body, usage)) if self._with_usage else b""

    def _event(self, choices: list[CompletionChoice], usage: TokenUsage | UnsetType | None) -> bytes:
        return event(Completion(id=self._id, created=self._created, model=self._model, choices=choices, usage=usage))
