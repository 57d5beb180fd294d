"""Chat templates, rendered as transformers renders them: the same environment, the same variables, the same text."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from modelport.contract.errors import ConfigurationError, InvalidRequest
from modelport_hf.folder import read_json

__all__ = ["ChatTemplates", "load_chat_templates"]

_OURS = frozenset(
    {"messages", "tools", "documents", "add_generation_prompt", "continue_final_message", "chat_template", "tokenize"}
)
"""Variables that a request sets by other fields, or that would change how a template is rendered."""

_TAG = "CONTINUE_FINAL_MESSAGE_TAG "
_READS_TEXT = re.compile(r"content['\"\]]*\s+is\s+(?:not\s+)?string")
_READS_PARTS = re.compile(
    r"content['\"\]]*\s+is\s+(?:not\s+)?(?:string|iterable|sequence|mapping)"
    r"|\bfor\s+\w+\s+in\s+\w+(?:\.content\b|\[['\"]content['\"]\])"
)


class ChatTemplates:
    """The templates of one checkpoint, by name; `default` and sometimes `tool_use`.

    Rendering is thread-safe. Templates are the checkpoint's code: they run in Jinja's sandbox and cannot change their arguments.
    """

    def __init__(self, sources: Mapping[str, str], special: Mapping[str, str]) -> None:
        self._sources = dict(sources)
        self._special = dict(special)
        environment = _environment()
        try:
            self._compiled = {name: environment.from_string(source) for name, source in sources.items()}
        except jinja2.TemplateSyntaxError as error:
            raise ConfigurationError(
                f"The checkpoint's chat template has a syntax error in line {error.lineno} ({error.message}). Repair it, or take"
                " another revision of the checkpoint."
            ) from error

    def __bool__(self) -> bool:
        return bool(self._sources)

    def source(self, has_tools: bool) -> str:
        """The text of the template that is used, with tools or without."""
        return self._sources[self._name(has_tools)] if self._sources else ""

    def reads_tools(self) -> bool:
        """Whether the template that is used with tools mentions them."""
        return bool(self._sources) and re.search(r"\btools\b", self.source(True)) is not None

    def reads_parts(self, has_tools: bool) -> bool:
        """Whether the template itself goes through the parts of a message's content; otherwise it wants text."""
        return _READS_PARTS.search(self.source(has_tools)) is not None

    def reads_text(self, has_tools: bool) -> bool:
        """Whether a template that goes through parts takes plain text too; otherwise it wants parts always."""
        return _READS_TEXT.search(self.source(has_tools)) is not None

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        options: Mapping[str, Any] | None = None,
    ) -> str:
        """The conversation as one text, special tokens included.

        Args:
            messages: The turns, oldest first.
            tools: JSON Schemas of functions.
            add_generation_prompt: Begin the assistant's turn.
            continue_final_message: End right after the last message's text, so that it is continued; excludes the above.
            options: Further variables of the template.

        Raises:
            InvalidRequest: if there is no template, an option has a reserved name, or the template refuses the conversation.
        """
        if not self._sources:
            raise InvalidRequest(
                "This model has no chat template, so it cannot take messages. Send `prompt` (a text completion) instead, or add a"
                " chat_template.jinja to the checkpoint.",
                param="messages",
            )
        if reserved := sorted(_OURS & set(options or ())):
            raise InvalidRequest(
                f"{reserved[0]} cannot be set as an option of the template: the request's own fields set it.",
                param=f"template_options.{reserved[0]}",
            )
        turns = [dict(message) for message in messages]
        final = _mark_final(turns) if continue_final_message else ""
        variables: dict[str, Any] = {**self._special, **(options or {})}
        try:
            text = self._compiled[self._name(tools is not None)].render(
                {
                    **variables,
                    "messages": turns,
                    "tools": None if tools is None else list(tools),
                    "documents": None,
                    "add_generation_prompt": add_generation_prompt and not continue_final_message,
                }
            )
        except jinja2.TemplateError as error:
            raise InvalidRequest(
                f"The model's chat template refuses this conversation: {error.message or type(error).__name__}", param="messages"
            ) from error
        except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError) as error:
            raise InvalidRequest(
                f"The model's chat template cannot render this conversation ({type(error).__name__}): a message has a form that"
                " it does not know. Check the roles and contents.",
                param="messages",
            ) from error
        return _cut_at_mark(text, final) if continue_final_message else text

    def _name(self, has_tools: bool) -> str:
        if has_tools and "tool_use" in self._sources:
            return "tool_use"
        return "default" if "default" in self._sources else next(iter(self._sources))


def load_chat_templates(folder: Path, special: Mapping[str, str], *, of_processor: bool = False) -> ChatTemplates:
    """The templates of a checkpoint's folder, from files of their own or from tokenizer_config.json; empty if it has none.

    Args:
        folder: The checkpoint.
        special: Named special tokens, which templates use as variables.
        of_processor: Whether the template of the checkpoint's processor is wanted, which knows images, before the tokenizer's.
    """
    sources: dict[str, str] = {}
    files_of_both = ["tokenizer_config.json", "chat_template.json"]
    if of_processor:
        files_of_both = ["chat_template.json", "processor_config.json", "tokenizer_config.json"]
    found = ((read_json(folder, name) or {}).get("chat_template") for name in files_of_both)
    configured = next((template for template in found if template is not None), None)
    if isinstance(configured, str):
        sources["default"] = configured
    elif isinstance(configured, list):
        sources = {str(entry["name"]): str(entry["template"]) for entry in configured}
    elif isinstance(configured, dict):
        sources = {str(name): str(template) for name, template in configured.items()}
    files = {path.stem: path for path in sorted((folder / "additional_chat_templates").glob("*.jinja"))}
    if (folder / "chat_template.jinja").is_file():
        files["default"] = folder / "chat_template.jinja"
    if files:  # files of their own replace what the configuration says
        sources = {name: path.read_text(encoding="utf-8") for name, path in files.items()}
    return ChatTemplates(sources, special)


def _mark_final(turns: list[dict[str, Any]]) -> str:
    """Appends a mark to the last message's text and returns that text."""
    turns[:] = copy.deepcopy(turns)
    content = turns[-1].get("content") if turns else None
    if isinstance(content, str):
        turns[-1]["content"] = content + _TAG
        return content
    for part in reversed(content if isinstance(content, list) else []):
        if isinstance(part.get("text"), str):
            text: str = part["text"]
            part["text"] = text + _TAG
            return text
    raise InvalidRequest("The final message cannot be continued: it has no text.", param="messages")


def _cut_at_mark(rendered: str, final: str) -> str:
    mark = _TAG.strip()
    if final.strip() not in rendered or mark not in rendered:
        raise InvalidRequest(
            "The final message cannot be continued: the model's chat template leaves it out or changes it.",
            param="continue_final_message",
        )
    at = rendered.rindex(mark)
    kept = rendered[:at]
    return kept if rendered[at : at + len(_TAG)] == _TAG else kept.rstrip()


class _Generation(jinja2.ext.Extension):
    """`{% generation %}…{% endgeneration %}`, which marks what an assistant said for training; here only its body counts."""

    tags = {"generation"}

    def parse(self, parser: jinja2.parser.Parser) -> jinja2.nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

    def _body(self, caller: Any) -> Any:
        return caller()


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise
    environment.globals["strftime_now"] = _now
    return environment


def _raise(message: str) -> None:
    raise jinja2.TemplateError(message)


def _to_json(
    value: Any, ensure_ascii: bool = False, indent: int | None = None, separators: Any = None, sort_keys: bool = False
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _now(form: str) -> str:
    return datetime.now().astimezone().strftime(form)
