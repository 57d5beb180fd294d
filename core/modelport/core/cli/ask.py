"""From a word on the command line to a task's request."""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Sequence
from typing import Any

from modelport.contract.errors import ConfigurationError
from modelport.core.cli.output import note

__all__ = ["input_text", "request_body", "with_options"]

# the field of a request that takes its text, by the usual names, the most telling first
_TEXT_FIELDS = ("inputs", "prompt", "text", "query", "input")


def input_text(word: str | None) -> str:
    """The word itself, or what stdin holds if there is none or it is `-`.

    Raises:
        ConfigurationError: stdin is empty, or not text.
    """
    if word is not None and word != "-":
        return word
    if sys.stdin.isatty():
        note("Type the input, then Ctrl-D on a line of its own.")
    try:
        text = sys.stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError:
        raise ConfigurationError("The input on stdin is not text in UTF-8.") from None
    if not text:
        raise ConfigurationError("There is no input: stdin is empty. Write the input after the model.")
    return text


def request_body(text: str, fields: Collection[str], *, chat: bool = False) -> dict[str, Any]:
    """The request that `text` stands for: itself if it is a JSON object, else the value of the request's text field.

    Args:
        text: A text, or a JSON object with the request's fields.
        fields: Names of the fields of the task's request.
        chat: Make it a conversation of one message, if the request knows conversations.

    Raises:
        ConfigurationError: it looks like JSON and is not, or the request has no field for a text.
    """
    if text.lstrip().startswith("{"):
        try:
            body = json.loads(text)
        except ValueError as error:
            raise ConfigurationError(f"The input looks like a JSON object, but is not one: {error}.") from None
        return dict(body)
    if chat and "messages" in fields:
        return {"messages": [{"role": "user", "content": text}]}
    field = next((name for name in _TEXT_FIELDS if name in fields), None)
    if field is None:
        raise ConfigurationError(
            f"This task takes no plain text. Give a JSON object with its fields: {', '.join(sorted(fields))}."
        )
    return {field: text}


def with_options(body: dict[str, Any], options: Sequence[str]) -> dict[str, Any]:
    """`body` with `KEY=VALUE` pairs added; a value that is JSON is read as that, any other is a text.

    Raises:
        ConfigurationError: a pair has no equals sign.
    """
    added = dict(body)
    for option in options:
        key, equals, value = option.partition("=")
        if not equals:
            raise ConfigurationError(f"{option!r} is no option of a request; write KEY=VALUE, for example max_new_tokens=64.")
        try:
            added[key] = json.loads(value)
        except ValueError:
            added[key] = value
    return added
