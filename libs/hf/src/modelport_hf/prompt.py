"""From a request to the prompt's ids: chat template, tools, tokenising, and room in the context."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import numpy as np

from modelport.contract import Constraint, InputTooLong, InvalidRequest, UnsupportedParameter
from modelport.tasks.text import GenerationRequest, Message
from modelport_hf.chat import ChatTemplates
from modelport_hf.reasoning import thinks
from modelport_hf.tokenizer import Tokenizer
from modelport_hf.tools import FORMATS, LlamaParser, ToolParser, tool_format

__all__ = ["Prompt", "Prompter"]


class Prompt(msgspec.Struct, frozen=True, kw_only=True):
    """A prompt that fits, and how the answer to it is to be read.

    Args:
        ids: Its tokens.
        text: Its text: rendered, or as given; made from ids only where it is asked for.
        max_new_tokens: Room for the output.
        parser: Reads tool calls, if there can be any.
        functions: The functions that may be called.
        thinks: Whether `<think>` is a marker.
        constraint: What the output must be.
        inputs: What the model is given beside tokens, as its processor made it: of images, or sound.
    """

    ids: list[int]
    text: str
    max_new_tokens: int
    parser: type[ToolParser] | None = None
    functions: tuple[str, ...] = ()
    thinks: bool = False
    constraint: Constraint | None = None
    inputs: dict[str, np.ndarray] = {}


class Prompter:
    """Makes prompts for one model; its methods run on the CPU pool. A subclass takes more than text: it reads other parts of
    messages, and encodes the conversation with what they bring.

    Args:
        model: The model's name, for messages.
        tokenizer: Its tokenizer.
        templates: Its chat templates, maybe none.
        limit: Most tokens of prompt and output together.
        tool_parser: A form of tool calls from the configuration, over what the template shows.
    """

    def __init__(
        self, model: str, tokenizer: Tokenizer, templates: ChatTemplates, limit: int | None, tool_parser: str | None = None
    ) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._templates = templates
        self._limit = limit
        self._tool_parser = tool_parser

    def __call__(self, request: GenerationRequest) -> Prompt:
        """The prompt of a request.

        Raises:
            InvalidRequest: if it cannot be made, naming the field.
        """
        if request.messages is None:
            self._refuse_chat_fields(request)
            text, ids = self._plain(request)
            return self.fitted(request, Prompt(ids=ids, text=text, max_new_tokens=0, constraint=request.constraint))
        if not request.messages:
            raise InvalidRequest("messages is empty; give at least one message.", param="messages")
        tools = request.tools if request.tools and request.tool_choice != "none" else None
        parser, functions, constraint = self._calls(request, tools)
        media: list[Any] = []
        text = self.render(request, self._turns(request.messages, tools is not None, media), tools)
        ids, inputs = self.encode(text, media)
        prompt = Prompt(
            ids=ids,
            inputs=inputs,
            text=text,
            max_new_tokens=0,
            parser=parser,
            functions=functions,
            thinks=constraint is None and thinks(self._templates.source(tools is not None)),
            constraint=constraint,
        )
        return self.fitted(request, prompt)

    def read_part(self, part: dict[str, Any], param: str, media: list[Any]) -> dict[str, Any]:
        """A part of a message that is no text, as templates know it; what it brings is added to `media`.

        Raises:
            InvalidRequest: if the model does not take such parts.
        """
        kind = part.get("type")
        what = "an image" if kind in ("image", "image_url") else f"of the type {str(kind)[:40]!r}"
        raise InvalidRequest(
            f"The model {self._model!r} takes text only, and a part of a message is {what}. Send parts of the form"
            " {type: text, text: …}, or name a model that takes more.",
            param=param,
        )

    def render(self, request: GenerationRequest, turns: list[dict[str, Any]], tools: list[dict[str, Any]] | None) -> str:
        """The conversation as one text.

        Raises:
            InvalidRequest: if the model has no template, or it refuses the conversation.
        """
        return self._templates.render(
            turns, tools=tools, continue_final_message=request.continue_final_message, options=request.template_options
        )

    def encode(self, text: str, media: list[Any]) -> tuple[list[int], dict[str, np.ndarray]]:
        """Tokens of a rendered conversation, and what the model is given beside them."""
        return self._tokenizer.encode(text, special=False).ids, {}

    def _plain(self, request: GenerationRequest) -> tuple[str, list[int]]:
        prompt = request.prompt
        if isinstance(prompt, str):
            ids = self._tokenizer.encode(prompt).ids
            if not ids:
                raise InvalidRequest("prompt has no tokens; give a text of at least one character.", param="prompt")
            return prompt, ids
        assert prompt is not None
        self._tokenizer.check_ids(prompt, "prompt")
        return (self._tokenizer.decode(prompt) if request.echo else ""), prompt

    def _refuse_chat_fields(self, request: GenerationRequest) -> None:
        for name in ("tools", "tool_choice", "template_options", "continue_final_message"):
            if getattr(request, name):
                raise InvalidRequest(f"{name} belongs to messages; it has no meaning for a prompt.", param=name)

    def _turns(self, messages: list[Message], has_tools: bool, media: list[Any]) -> list[dict[str, Any]]:
        reads_parts = not self._templates or self._templates.reads_parts(has_tools)
        turns = []
        for index, message in enumerate(messages):
            content: Any = message.content
            if isinstance(content, list):
                parts = [self._part(part, f"messages.{index}.content.{at}", media) for at, part in enumerate(content)]
                content = parts if reads_parts else _joined(parts, f"messages.{index}.content")
            turns.append(_turn(message, index, content))
        return turns

    def _part(self, part: dict[str, Any], param: str, media: list[Any]) -> dict[str, Any]:
        if part.get("type", "text") != "text":
            return self.read_part(part, param, media)
        if not isinstance(part.get("text"), str):
            raise InvalidRequest("A part of a message must be {type: text, text: …}; this one has no text.", param=param)
        return part

    def _calls(
        self, request: GenerationRequest, tools: list[dict[str, Any]] | None
    ) -> tuple[type[ToolParser] | None, tuple[str, ...], Constraint | None]:
        """How calls are read, of which functions, and what the output must be."""
        choice = request.tool_choice
        if tools is None:
            if choice not in (None, "none", "auto"):
                raise InvalidRequest("tool_choice asks for a call, but there are no tools; give tools.", param="tool_choice")
            return None, (), request.constraint
        functions = {}
        for index, tool in enumerate(tools):
            function = tool.get("function", tool)
            name = function.get("name") if isinstance(function, dict) else None
            if not isinstance(name, str) or not name:
                raise InvalidRequest("A tool has no function.name.", param=f"tools.{index}.function.name")
            functions[name] = function
        if self._templates and not self._templates.reads_tools():
            raise UnsupportedParameter(
                f"The chat template of {self._model!r} does not know tools. Leave tools out, or use a model that was trained to"
                " call functions.",
                param="tools",
            )
        form = self._tool_parser or tool_format(self._templates.source(True))
        if self._templates and form is None:
            raise UnsupportedParameter(
                f"The form in which {self._model!r} writes tool calls is not known. If it is one of {', '.join(FORMATS)}, set"
                f" models.{self._model}.options.tool_parser to it.",
                param="tools",
            )
        if choice in (None, "auto"):
            return (FORMATS[form] if form else None), tuple(functions), request.constraint
        if request.constraint is not None:
            raise InvalidRequest(
                "tool_choice and constraint both say what the output must be; give one of them.", param="tool_choice"
            )
        if choice != "required":
            if choice not in functions:
                raise InvalidRequest("tool_choice names a function that is not among the tools.", param="tool_choice")
            functions = {choice: functions[choice]}
        return LlamaParser, tuple(functions), Constraint("json_schema", json.dumps(_one_call(functions)))

    def fitted(self, request: GenerationRequest, prompt: Prompt) -> Prompt:
        """The prompt with room for its output.

        Raises:
            InputTooLong: if there is none, and the request does not let the prompt be cut.
        """
        limit, wanted, ids = self._limit, request.max_new_tokens, prompt.ids
        if limit is None:
            return msgspec.structs.replace(prompt, max_new_tokens=wanted if wanted is not None else 1024)
        room = limit - (1 if wanted is None else wanted)
        if len(ids) > room and request.truncate and room > 0 and not prompt.inputs:
            if isinstance(request.prompt, str):
                ids = self._tokenizer.encode(request.prompt, max_tokens=room, side="left").ids
            ids = ids[-room:]
        if len(ids) > room:
            param = "prompt" if request.messages is None else "messages"
            if wanted is None or len(ids) >= limit:
                raise InputTooLong(
                    f"The prompt has {len(ids)} tokens, and this model's context holds {limit} tokens of prompt and output"
                    " together. Shorten the prompt, or ask for truncation.",
                    param=param,
                )
            raise InputTooLong(
                f"This model's context holds {limit} tokens, and {len(ids) + wanted} are asked for: {len(ids)} of the prompt and"
                f" {wanted} of output. Shorten the prompt, or ask for at most {limit - len(ids)} new tokens.",
                param=param,
            )
        return msgspec.structs.replace(prompt, ids=ids, max_new_tokens=limit - len(ids) if wanted is None else wanted)


def _joined(parts: list[dict[str, Any]], param: str) -> str:
    """Parts as one text, for templates that want text."""
    if any("text" not in part for part in parts):
        raise InvalidRequest("The model's chat template takes text only, and has no place for anything else.", param=param)
    return "\n".join(part["text"] for part in parts)


def _turn(message: Message, index: int, content: Any) -> dict[str, Any]:
    """A message as templates know it: absent keys are absent, and arguments of calls are objects."""
    if not message.role:
        raise InvalidRequest("A message has no role.", param=f"messages.{index}.role")
    turn: dict[str, Any] = {"role": message.role, "content": "" if content is None else content}
    if message.name is not None:
        turn["name"] = message.name
    if message.tool_call_id is not None:
        turn["tool_call_id"] = message.tool_call_id
    if message.tool_calls:
        turn["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.function.name, "arguments": _object(call.function.arguments)},
            }
            for call in message.tool_calls
        ]
    return turn


def _object(arguments: str) -> Any:
    # Stricter than `json`: digits and nesting without end, and halves of characters, which no tokenizer takes, stay text.
    try:
        return msgspec.json.decode(arguments) if arguments.strip() else {}
    except (msgspec.DecodeError, RecursionError):
        return arguments


def _one_call(functions: dict[str, Any]) -> dict[str, Any]:
    """The JSON Schema of one call of one of the functions."""
    calls = [
        {
            "type": "object",
            "properties": {"name": {"const": name}, "arguments": function.get("parameters") or {"type": "object"}},
            "required": ["name", "arguments"],
            "additionalProperties": False,
        }
        for name, function in functions.items()
    ]
    return calls[0] if len(calls) == 1 else {"anyOf": calls}
