"""POST /v1/chat/completions."""

from __future__ import annotations

import time
from typing import Annotated, Any, Literal

import msgspec
from litestar import Response, post
from msgspec import UNSET, Meta

from modelport.contract.api import decode_body
from modelport.contract.dialect import speaking
from modelport.contract.reply import Reply, Usage
from modelport.tasks.text import MOST_LOGPROBS, GeneratedChoice, GenerationDelta, GenerationRequest, GenerationResult
from modelport_api_openai.answer import AnyRequest, HostDependency, TokenUsage, answer, fresh_id
from modelport_api_openai.chat_wire import (
    AnswerMessage,
    ChatChoice,
    ChatChunk,
    ChatCompletion,
    ChatDelta,
    ChatMessage,
    ChunkChoice,
    ToolChoice,
    ToolFragment,
    ToolSpec,
)
from modelport_api_openai.errors import invalid
from modelport_api_openai.finish import finished
from modelport_api_openai.logprobs import ChatLogprobs
from modelport_api_openai.sampling import GENERATION_NAMES, GenerationBody
from modelport_api_openai.sse import event, event_stream, open_streams

__all__ = ["ChatBody", "create_chat_completion"]


class ChatBody(GenerationBody, kw_only=True, forbid_unknown_fields=True):
    """The request. The last three are additions, as vLLM names them."""

    messages: Annotated[list[ChatMessage], Meta(min_length=1)]
    max_tokens: Annotated[int, Meta(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Meta(ge=1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=MOST_LOGPROBS)] | None = None
    tools: list[ToolSpec] | None = None
    tool_choice: Literal["none", "auto", "required"] | ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    modalities: list[Literal["text"]] | None = None

    chat_template_kwargs: dict[str, Any] | None = None
    continue_final_message: bool | None = None
    add_generation_prompt: bool | None = None

    def names(self) -> dict[str, str]:
        """What the task's fields are called in this very request, for errors."""
        names = {
            **GENERATION_NAMES,
            "constraint": self.constraint_field,
            "prompt": "messages",
            "template_options": "chat_template_kwargs",
        }
        if self.max_tokens is None:
            names["max_new_tokens"] = "max_completion_tokens"
        if self.top_logprobs:
            names["logprobs"] = "top_logprobs"
        return names

    def to_task(self) -> GenerationRequest:
        """The request in the task's terms.

        Raises:
            InvalidRequest: for what contradicts itself.
        """
        fields = self.sampling()
        if self.max_completion_tokens is not None:
            if self.max_tokens not in (None, self.max_completion_tokens):
                raise invalid("max_tokens", "'max_tokens' is the old name of 'max_completion_tokens'. Send one of them.")
            fields["max_new_tokens"] = self.max_completion_tokens
        if self.logprobs:
            fields["logprobs"] = self.top_logprobs or 0
        elif self.top_logprobs:
            raise invalid("top_logprobs", "The field 'top_logprobs' needs 'logprobs': true.")
        tool_choice = self._tool_choice()
        if tool_choice not in (None, "none", "auto") and fields.get("constraint") is not None:
            raise invalid(
                "tool_choice",
                f"'tool_choice' asks for a call, and '{self.constraint_field}' for something else. Leave one of them out.",
            )
        if self.add_generation_prompt is not None and self.add_generation_prompt is bool(self.continue_final_message):
            raise invalid(
                "add_generation_prompt",
                "The field 'add_generation_prompt' must be the opposite of 'continue_final_message'. Leave it out.",
            )
        return GenerationRequest(
            messages=[message.to_task(position) for position, message in enumerate(self.messages)],
            tools=msgspec.to_builtins(self.tools) if self.tools else None,
            tool_choice=tool_choice,
            template_options=self.chat_template_kwargs or None,
            continue_final_message=bool(self.continue_final_message),
            **fields,
        )

    def _tool_choice(self) -> str | None:
        choice = self.tool_choice
        if choice is None:
            return None
        if not self.tools:
            if choice in ("none", "auto"):
                return None
            raise invalid("tool_choice", "The field 'tool_choice' asks for a call, but there are no 'tools' to call.")
        if isinstance(choice, str):
            return choice
        known = [tool.function.name for tool in self.tools]
        if choice.function.name not in known:
            param = "tool_choice.function.name"
            raise invalid(param, f"'{choice.function.name}' is none of the 'tools'. There are: {', '.join(known)}.")
        return choice.function.name

    @property
    def one_call(self) -> bool:
        """Whether an answer may hold no more than one tool call."""
        return self.parallel_tool_calls is False


@post("/v1/chat/completions", status_code=200, summary="Conversations, continued", tags=["openai"])
async def create_chat_completion(request: AnyRequest, host: HostDependency) -> Response[Any]:
    """Conversations, continued."""
    started = time.perf_counter()
    principal, scope = host.principal(request.scope), request.scope
    body = decode_body(await request.body(), ChatBody)
    names = body.names()
    with speaking(names):
        task = body.to_task()
        if body.stream:
            streams = await open_streams([host.stream("text-generation", body.model, task, principal, scope)])
            return event_stream(streams, ChatWriter(body, streams[0].model), names, started)
        reply: Reply[GenerationResult] = await host.run("text-generation", body.model, task, principal, scope)
        choices = [_choice(choice, one_call=body.one_call) for choice in reply.result.choices]
    completion = ChatCompletion(
        id=fresh_id("chatcmpl"),
        created=int(time.time()),
        model=reply.model,
        choices=choices,
        usage=TokenUsage.of_generation(reply.usage),
    )
    return answer(completion, started)


def _choice(choice: GeneratedChoice, *, one_call: bool) -> ChatChoice:
    calls = choice.tool_calls[:1] if choice.tool_calls and one_call else choice.tool_calls
    message = AnswerMessage(
        content=choice.text or None if calls else choice.text,
        reasoning_content=choice.reasoning or UNSET,
        tool_calls=[_call(call.id, call.function.name, call.function.arguments) for call in calls] if calls else UNSET,
    )
    return ChatChoice(
        index=choice.index,
        message=message,
        logprobs=ChatLogprobs.of(choice.tokens),
        finish_reason=finished(choice.finish_reason),
    )


def _call(id: str, name: str, arguments: str) -> dict[str, Any]:
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


class ChatWriter:
    """Writes deltas as chunks of one chat completion.

    A choice begins with its role and ends with an empty delta and its reason; what a delta brings in between is one event.
    """

    def __init__(self, body: ChatBody, model: str) -> None:
        self._id = fresh_id("chatcmpl")
        self._created = int(time.time())
        self._model = model
        self._one_call = body.one_call
        self._with_usage = body.with_usage
        self._begun: set[int] = set()

    def delta(self, prompt: int, delta: GenerationDelta) -> bytes:
        events = []
        if delta.index not in self._begun:
            self._begun.add(delta.index)
            events.append(self._choice(delta.index, ChatDelta(role="assistant", content="", refusal=None)))
        calls = [
            ToolFragment.of(call.index, call.id, call.name, call.arguments)
            for call in delta.tool_calls or ()
            if call.index == 0 or not self._one_call
        ]
        logprobs = ChatLogprobs.of(delta.tokens)
        if delta.text or delta.reasoning or calls or logprobs:
            gained = ChatDelta(
                content=delta.text or (UNSET if calls or delta.reasoning else ""),
                reasoning_content=delta.reasoning or UNSET,
                tool_calls=calls or UNSET,
            )
            events.append(self._choice(delta.index, gained, logprobs=logprobs))
        if delta.finish_reason is not None:
            events.append(self._choice(delta.index, ChatDelta(), finish_reason=finished(delta.finish_reason)))
        return b"".join(events)

    def usage(self, usage: Usage) -> bytes:
        return self._event([], TokenUsage.of_generation(usage)) if self._with_usage else b""

    def _choice(self, index: int, delta: ChatDelta, **rest: Any) -> bytes:
        return self._event([ChunkChoice(index=index, delta=delta, **rest)], None if self._with_usage else UNSET)

    def _event(self, choices: list[ChunkChoice], usage: Any) -> bytes:
        return event(ChatChunk(id=self._id, created=self._created, model=self._model, choices=choices, usage=usage))
