"""Ids to text, a few at a time, never cutting a character."""

from __future__ import annotations

import codecs
from collections.abc import Iterable

from modelport_hf.tokenizer import Tokenizer

__all__ = ["Detokenizer"]

_REPLACEMENT = "\ufffd"
_LONGEST_HOLD = 16
"""Tokens after which text that still ends in U+FFFD is let go: a character has at most four bytes, so it is not going to mend."""


class Detokenizer:
    """The text of one growing sequence of ids. The pieces add up to the text of all ids.

    A step costs the same however long the sequence is: byte-level vocabularies go token by token through an incremental UTF-8
    decoder; for others a short window is decoded twice, since their tokens' text depends on their neighbours.

    Args:
        tokenizer: The tokenizer.
        before: Ids that precede, usually the prompt's last few; their text is not part of the output but decides whether the
            first piece starts with a space.
        keep: Special tokens that are to be visible (the markers of tool calls).
    """

    def __init__(self, tokenizer: Tokenizer, before: Iterable[int] = (), keep: frozenset[int] = frozenset()) -> None:
        self._tokenizer = tokenizer
        self._hidden = tokenizer.table.special - keep
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace") if tokenizer.table.bytewise else None
        self._window = [token for token in before if token not in self._hidden][-6:] if self._utf8 is None else []
        self._read = len(self._window)

    def push(self, ids: Iterable[int]) -> str:
        """The text that `ids` complete; what may be part of a character is kept for later."""
        if self._utf8 is not None:
            table, hidden = self._tokenizer.table, self._hidden
            return self._utf8.decode(b"".join([table[token] for token in ids if token not in hidden]))
        return "".join([self._push_one(token) for token in ids if token not in self._hidden])

    def finish(self) -> str:
        """What was kept back, with U+FFFD for a character that never ended."""
        if self._utf8 is not None:
            return self._utf8.decode(b"", final=True)
        _, text = self._unread()
        self._read = len(self._window)
        return text

    def _push_one(self, token: int) -> str:
        self._window.append(token)
        _, text = self._unread()
        if not text or (text.endswith(_REPLACEMENT) and len(self._window) - self._read < _LONGEST_HOLD):
            return ""
        self._window = self._window[self._read :]
        self._read = len(self._window)
        return text

    def _unread(self) -> tuple[str, str]:
        decode = self._tokenizer.decode
        known = decode(self._window[: self._read], skip_special=False)
        return known, decode(self._window, skip_special=False)[len(known) :]
