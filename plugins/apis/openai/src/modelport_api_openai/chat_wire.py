"""The Structs of chat completions: what a request is made of, and what answers and chunks are."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import UNSET, Meta, UnsetType

from modelport.tasks.text import Message, ToolCall, ToolFunction
from modelport_api_openai.answer import FINGERPRINT, TokenUsage
from modelport_api_openai.errors import invalid
from modelport_api_openai.logprobs import ChatLogprobs

__all__ = [
    "AnswerMessage",
    "ChatChoice",
    "ChatChunk",
    "ChatCompletion",
    "ChatDelta",
    "ChatMessage",
    "ChunkChoice",
    "FinishReason",
    "ToolChoice",
    "ToolFragment",
    "ToolSpec",
]

FinishReason: TypeAlias = Literal["stop", "length", "tool_calls"]

# ---------------------------------------------------------------------------------------------------------- requests


class CalledFunction(msgspec.Struct, forbid_unknown_fields=True):
    """A function that the model called in an earlier turn; `arguments` is JSON text."""

    name: str
    arguments: str = ""


class PastToolCall(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A call of an earlier turn. `index` is what is left of a stream's chunk."""

    id: str
    function: CalledFunction
    type: Literal["function"] = "function"
    index: Any = None


class ChatMessage(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """One turn. Clients send an answer back as they got it, so its remaining fields are accepted while they say nothing."""

    role: Literal["developer", "system", "user", "assistant", "tool"]
    content: str | list[dict[str, Any]] | None = None
    name: str | None = None
    tool_calls: list[PastToolCall] | None = None
    tool_call_id: str | None = None
    refusal: Any = None
    annotations: Any = None
    reasoning: Any = None
    reasoning_content: Any = None
    audio: None = None
    function_call: None = None

    def to_task(self, position: int) -> Message:
        """The turn in the task's terms; templates know a developer as `system`.

        Raises:
            InvalidRequest: if the role lacks what it needs.
        """
        where = f"messages.{position}"
        if self.content is None and self.role != "assistant":
            raise invalid(f"{where}.content", f"The field '{where}.content' is required for the role '{self.role}'.")
        if self.content is None and not self.tool_calls:
            raise invalid(f"{where}.content", f"The field '{where}.content' is required unless 'tool_calls' is there.")
        if self.role == "tool" and self.tool_call_id is None:
            raise invalid(f"{where}.tool_call_id", f"The field '{where}.tool_call_id' is required for the role 'tool'.")
        for index, part in enumerate(self.content if isinstance(self.content, list) else ()):
            if not isinstance(part.get("type"), str):
                param = f"{where}.content.{index}.type"
                raise invalid(param, f"The field '{param}' is required: a part says what it is, such as 'text'.")
        calls = None
        if self.tool_calls:
            calls = [ToolCall(id=c.id, function=ToolFunction(c.function.name, c.function.arguments)) for c in self.tool_calls]
        return Message(
            role="system" if self.role == "developer" else self.role,
            content=self.content,
            name=self.name,
            tool_calls=calls,
            tool_call_id=self.tool_call_id,
        )


class FunctionSpec(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A function that the model may call; `parameters` is a JSON Schema."""

    name: Annotated[str, Meta(min_length=1)]
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class ToolSpec(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A tool. Functions are the only kind."""

    function: FunctionSpec
    type: Literal["function"]


class FunctionName(msgspec.Struct, forbid_unknown_fields=True):
    """The name of a function."""

    name: str


class ToolChoice(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The one function that must be called."""

    function: FunctionName
    type: Literal["function"] = "function"


# ----------------------------------------------------------------------------------------------------------- answers


class AnswerMessage(msgspec.Struct, frozen=True, kw_only=True):
    """A whole answer; `content` is null beside tool calls, unless there is text too."""

    role: str = "assistant"
    content: str | None
    refusal: None = None
    reasoning_content: str | UnsetType = UNSET
    tool_calls: list[dict[str, Any]] | UnsetType = UNSET


class ChatChoice(msgspec.Struct, frozen=True, kw_only=True):
    """One choice of an answer."""

    index: int
    message: AnswerMessage
    logprobs: ChatLogprobs | None = None
    finish_reason: FinishReason


class ChatCompletion(msgspec.Struct, frozen=True, kw_only=True):
    """An answer."""

    id: str
    object: str = "chat.completion"
    created: int
    model: str
    system_fingerprint: str = FINGERPRINT
    choices: list[ChatChoice]
    usage: TokenUsage


class FunctionFragment(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of a called function: its name once, then pieces of the arguments."""

    name: str | UnsetType = UNSET
    arguments: str = ""


class ToolFragment(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of a tool call; `id` and `type` come once."""

    index: int
    id: str | UnsetType = UNSET
    type: str | UnsetType = UNSET
    function: FunctionFragment

    @classmethod
    def of(cls, index: int, id: str | None, name: str | None, arguments: str) -> ToolFragment:
        """The piece with these parts; what is None is left out."""
        return cls(
            index=index,
            id=UNSET if id is None else id,
            type=UNSET if id is None else "function",
            function=FunctionFragment(name=UNSET if name is None else name, arguments=arguments),
        )


class ChatDelta(msgspec.Struct, frozen=True, kw_only=True):
    """What a choice gained; only what it gained is there."""

    role: str | UnsetType = UNSET
    content: str | UnsetType = UNSET
    refusal: UnsetType | None = UNSET
    reasoning_content: str | UnsetType = UNSET
    tool_calls: list[ToolFragment] | UnsetType = UNSET


class ChunkChoice(msgspec.Struct, frozen=True, kw_only=True):
    """One choice of a chunk."""

    index: int
    delta: ChatDelta
    logprobs: ChatLogprobs | None = None
    finish_reason: FinishReason | None = None


class ChatChunk(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of a streamed answer. `usage` is there, as null, only if the caller asked for usage."""

    id: str
    object: str = "chat.completion.chunk"
    created: int
    model: str
    system_fingerprint: str = FINGERPRINT
    choices: list[ChunkChoice]
    usage: TokenUsage | UnsetType | None = UNSET
