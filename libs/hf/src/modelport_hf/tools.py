"""Tool calls in a model's text, found while it is being written. Pure.

Which form a model uses is read from its chat template, since that is where it is taught:

=========  ==========================================================================
`hermes`   `<tool_call>{"name": …, "arguments": {…}}</tool_call>`, any number (Hermes, Qwen)
`mistral`  `[TOOL_CALLS][{"name": …, "arguments": {…}}, …]`, or `[TOOL_CALLS]name[ARGS]{…}`
`llama`    a whole answer that is `{"name": …, "parameters": {…}}`, several divided by `;`
=========  ==========================================================================
"""

from __future__ import annotations

import re
import secrets
import string
from collections.abc import Collection
from typing import ClassVar

from modelport.tasks.text import ToolCallDelta
from modelport_hf.calls import CallReader, NotACallError
from modelport_hf.stop import held_suffix

__all__ = ["FORMATS", "HermesParser", "LlamaParser", "MistralParser", "ToolParser", "tool_format"]

Found = tuple[str, list[ToolCallDelta]]
"""(text outside calls, pieces of calls)."""


class ToolParser:
    """Finds calls in a growing text. One object reads one choice.

    Args:
        names: The functions that the request offers; where no marker tells a call from text, only these are calls.

    Attributes:
        markers: Texts that announce calls. Where they are special tokens they must not be hidden.
        count: How many calls have begun.
    """

    markers: ClassVar[tuple[str, ...]] = ()

    def __init__(self, names: Collection[str] = ()) -> None:
        self._names = frozenset(names)
        self._held = ""
        self._reader: CallReader | None = None
        self.count = 0

    def push(self, text: str) -> Found:
        """What `text` completes. Text that may be the beginning of a marker is kept for later."""
        raise NotImplementedError

    def finish(self) -> Found:
        """What was kept back when the output ended; a call that never got a name is text."""
        held, self._held = self._held, ""
        reader, self._reader = self._reader, None
        return (reader.raw if reader is not None and reader.name is None else "") + held, []

    def _call_id(self) -> str:
        return f"call_{secrets.token_hex(12)}"

    def _read(self, text: str, pieces: list[ToolCallDelta]) -> str | None:
        """Feeds the open call; what follows it if it has ended, else None.

        Raises:
            NotACallError: with the text that it turned out to be.
        """
        reader = self._reader
        assert reader is not None
        arguments, rest = reader.push(text)
        if reader.name is not None and not reader.is_announced:
            reader.is_announced = True
            pieces.append(ToolCallDelta(index=self.count, id=self._call_id(), name=reader.name, arguments=arguments))
            self.count += 1
        elif arguments:
            pieces.append(ToolCallDelta(index=self.count - 1, arguments=arguments))
        if not reader.is_done:
            return None
        self._reader = None
        return rest


class HermesParser(ToolParser):
    """`<tool_call>` … `</tool_call>`."""

    markers = ("<tool_call>", "</tool_call>")

    def push(self, text: str) -> Found:
        open_, close = self.markers
        pieces: list[ToolCallDelta] = []
        out: list[str] = []
        text, self._held = self._held + text, ""
        while text:
            if self._reader is not None:
                try:
                    rest = self._read(text, pieces)
                except NotACallError as error:
                    self._reader = None
                    out.append(open_)
                    rest = error.text
                text = rest or ""
                continue
            before, found, after = text.partition(open_)
            if self.count:
                before = before.replace(close, "")
            if found:
                self._show(before, out)
                self._reader, text = CallReader(), after
                continue
            size = held_suffix(before, self.markers if self.count else (open_,))
            self._held, text = before[len(before) - size :], ""
            self._show(before[: len(before) - size], out)
        return "".join(out), pieces

    def finish(self) -> Found:
        is_open = self._reader is not None and self._reader.name is None
        text, pieces = super().finish()
        return (self.markers[0] if is_open else "") + text, pieces

    def _show(self, text: str, out: list[str]) -> None:
        if text.strip() or not self.count:
            out.append(text)


class MistralParser(ToolParser):
    """`[TOOL_CALLS]` and a list, or a name, `[ARGS]` and an object."""

    markers = ("[TOOL_CALLS]", "[ARGS]", "[CALL_ID]")

    def __init__(self, names: Collection[str] = ()) -> None:
        super().__init__(names)
        self._is_in_calls = False

    def push(self, text: str) -> Found:
        mark = self.markers[0]
        pieces: list[ToolCallDelta] = []
        text, self._held = self._held + text, ""
        if not self._is_in_calls:
            before, found, text = text.partition(mark)
            if not found:
                size = held_suffix(before, (mark,))
                self._held = before[len(before) - size :]
                return before[: len(before) - size], pieces
            self._is_in_calls = True
        else:
            before = ""
        while text:
            if self._reader is None:
                head = re.match(r"(?:\s|\[TOOL_CALLS\]|[\[\],])*", text)
                assert head is not None
                rest = text[head.end() :]
                if rest.startswith("{"):
                    self._reader = CallReader()
                elif (named := re.match(r"([\w.-]+)(?:\[CALL_ID\]\w*)?\[ARGS\]\s*(?=\{)", rest)) is not None:
                    self._reader, rest = CallReader(name=named[1]), rest[named.end() :]
                else:
                    self._held = text
                    return before, pieces
                text = rest
            try:
                text = self._read(text, pieces) or ""
            except NotACallError as error:
                self._reader = None
                return before + error.text, pieces
        return before, pieces

    def finish(self) -> Found:
        text, pieces = super().finish()
        return ("" if self.count and not text.strip("[], \n") else text), pieces

    def _call_id(self) -> str:
        # Mistral's templates refuse ids of another form when they come back in the next turn.
        return "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(9))


class LlamaParser(ToolParser):
    """An answer that is nothing but objects. Only functions of the request count, so that JSON answers stay answers."""

    markers = ("<|python_tag|>",)

    def __init__(self, names: Collection[str] = ()) -> None:
        super().__init__(names)
        self._is_text = False

    def push(self, text: str) -> Found:
        if self._is_text:
            return text, []
        pieces: list[ToolCallDelta] = []
        text, self._held = self._held + text, ""
        while text:
            if self._reader is None:
                rest = text.lstrip().removeprefix(self.markers[0]).lstrip(" \n;" if self.count else None)
                if not rest or self.markers[0].startswith(text.strip()):
                    self._held = text
                    break
                if not rest.startswith("{"):
                    self._is_text = True
                    return text if not self.count else "", pieces
                self._reader, text = CallReader(self._names), rest
            try:
                text = self._read(text, pieces) or ""
            except NotACallError as error:
                self._is_text, self._reader = True, None
                return error.text, pieces
        return "", pieces

    def finish(self) -> Found:
        text, pieces = super().finish()
        return ("" if self.count and not text.strip(" \n;") else text), pieces


FORMATS: dict[str, type[ToolParser]] = {"hermes": HermesParser, "mistral": MistralParser, "llama": LlamaParser}
"""Parsers by the name that `options.tool_parser` may give."""


def tool_format(template: str) -> str | None:
    """The form of calls that a chat template teaches: a key of `FORMATS`, or None if it teaches none that is known."""
    if "<tool_call>" in template and "<function=" not in template and "<arg_key>" not in template:
        return "hermes"
    if "[TOOL_CALLS]" in template:
        return "mistral"
    if (
        '"parameters"' in template
        and '"name"' in template
        and ("<|start_header_id|>" in template or "<|python_tag|>" in template)
    ):
        return "llama"
    return None
