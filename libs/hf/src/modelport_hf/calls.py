"""A function call written as a JSON object, read while it is being written. Pure."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Literal

__all__ = ["CallReader", "NotACallError"]

_ARGUMENTS = ("arguments", "parameters")


class NotACallError(Exception):
    """The text is not a call after all; `text` is all of it so far."""

    def __init__(self, text: str) -> None:
        super().__init__("not a function call")
        self.text = text


class CallReader:
    """Reads `{"name": …, "arguments": {…}}` (or `parameters`), in either order, from pieces of text.

    Arguments are passed on as they are written, once the name is known; arguments that come as a JSON string are
    passed on whole, unquoted.

    Args:
        names: The only names that count, if any are given.
        name: The name, if it is known beforehand; then only the object of the arguments follows.

    Attributes:
        name: The function's name, once it is known.
        is_done: Whether the object has ended.
        is_announced: For the owner, to tell whether it has passed the name on.
        raw: All text so far, until the name is known.
    """

    def __init__(self, names: Collection[str] = (), name: str | None = None) -> None:
        self.name = name
        self.is_done = self.is_announced = False
        self.raw = ""
        self._names = names
        self._is_bare = name is not None
        self._stack = 1 if self._is_bare else 0
        self._in_string = self._escaped = False
        self._expects: Literal["key", "value"] = "value" if self._is_bare else "key"
        self._key = "arguments" if self._is_bare else ""
        self._token = ""
        self._arguments: str | None = None
        self._sent = 0

    def push(self, text: str) -> tuple[str, str]:
        """(new text of the arguments, what follows the object).

        Raises:
            NotACallError: if this is no object, or its first key is none of a call's.
        """
        for at, char in enumerate(text):
            if self.name is None:
                self.raw += char
            try:
                self._take(char)
            except NotACallError:
                raise NotACallError(self.raw + text[at + 1 :]) from None
            if self.is_done:
                if self.name is None:
                    raise NotACallError(self.raw + text[at + 1 :])
                return self._news(), text[at + 1 :]
        return self._news(), ""

    def _news(self) -> str:
        if self.name is None:
            return ""
        arguments = self._arguments
        if arguments is None:
            arguments = self._token if self._expects == "value" and self._key in _ARGUMENTS else ""
            if arguments.startswith('"'):
                return ""
        news = arguments[self._sent :]
        self._sent = len(arguments)
        return news

    def _take(self, char: str) -> None:
        if self._in_string:
            self._token += char
            self._in_string = self._escaped or char != '"'
            self._escaped = char == "\\" and not self._escaped
        elif self._stack == 0:
            if char == "{":
                self._stack = 1
            elif not char.isspace():
                raise NotACallError(self.raw)
        elif self._stack == 1 and char in ":,}":
            self._separate(char)
        elif not (self._stack == 1 and char.isspace()):
            self._token += char
            self._in_string = char == '"'
            self._stack += (char in "{[") - (char in "}]")
            if self._is_bare and self._stack == 1 and char == "}":
                self._arguments, self.is_done = self._token, True

    def _separate(self, char: str) -> None:
        """A colon, comma or brace of the outer object: a key or a value is complete."""
        if char == ":" and self._expects == "key":
            self._key = self._parse(self._token)
            if self.name is None and self._arguments is None and self._key not in ("name", "type", "id", *_ARGUMENTS):
                raise NotACallError(self.raw)
            self._expects = "value"
        elif self._expects == "value":
            if self._key == "name":
                self.name = self._parse(self._token)
                if self._names and self.name not in self._names:
                    raise NotACallError(self.raw)
            elif self._key in _ARGUMENTS:
                quoted = self._token.startswith('"')
                self._arguments = self._parse(self._token) if quoted else self._token
            self._expects = "key"
        self._token = ""
        self.is_done = char == "}"

    def _parse(self, token: str) -> str:
        try:
            value = json.loads(token)
        except json.JSONDecodeError:
            raise NotACallError(self.raw) from None
        if not isinstance(value, str):
            raise NotACallError(self.raw)
        return value
