"""Languages that output is held to: compiled by llguidance, then asked before every token which ones may come."""

from __future__ import annotations

import functools
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from llguidance import LLMatcher, LLParserLimits, LLTokenizer
from llguidance.gbnf_to_lark import any_to_lark

from modelport.contract.errors import InvalidRequest
from modelport.contract.generate import Constraint

__all__ = ["Grammar", "Grammars", "byte_level"]

_KEPT = 16
_MOST_BYTES = 1 << 16
# What one caller's language may cost everybody aboard: milliseconds a step, and megabytes while it is kept.
_LIMITS = LLParserLimits(
    initial_lexer_fuel=100_000,
    step_lexer_fuel=100_000,
    step_max_items=20_000,
    max_lexer_states=10_000,
    max_grammar_size=100_000,
    verbose_errors=False,
)
# Any number of blanks is JSON too, and a small model can go on with them until its tokens are spent.
_JSON = {"whitespace_pattern": r"[ \n\t\r]{1,64}"}
_ANY_OBJECT = '{"type": "object"}'
_NAMES = {
    "json_schema": "the JSON schema",
    "json_object": "the JSON schema",
    "regex": "the regex",
    "choice": "the choice",
    "grammar": "the grammar",
}


class Grammar:
    """How far one choice is in its language.

    Args:
        matcher: llguidance's.
        vocabulary: How many logits the model has; the tokenizer may know more tokens, or fewer.
    """

    def __init__(self, matcher: LLMatcher, vocabulary: int) -> None:
        self._matcher = matcher
        self._vocabulary = vocabulary

    def copy(self) -> Grammar:
        """Another one at the same place, which goes its own way."""
        return Grammar(self._matcher.deep_copy(), self._vocabulary)

    def allowed(self, ends: Collection[int]) -> torch.Tensor:
        """Which tokens may come next: (vocabulary,) bool; `ends`, the end tokens, where the output may end."""
        bits = np.unpackbits(np.frombuffer(self._matcher.compute_bitmask(), np.uint8), bitorder="little")
        found = torch.from_numpy(bits[: self._vocabulary].view(np.bool_))
        if self._matcher.is_accepting():
            found[sorted(ends)] = True
        return found

    def accept(self, token: int) -> None:
        """`token` came."""
        self._matcher.consume_token(token)

    @property
    def is_over(self) -> bool:
        """Whether nothing can follow: the output is complete."""
        return bool(self._matcher.is_stopped())

    @property
    def error(self) -> str:
        """Why it cannot be followed any longer, or nothing."""
        return _line(self._matcher.get_error()) if self._matcher.is_error() else ""


class Grammars:
    """Compiles constraints over one vocabulary, and keeps the latest; the tokenizer is read when the first one comes.

    Args:
        tokenizer: A tokenizer.json.
        vocabulary: How many logits the model has.
        ends: The checkpoint's end tokens.
    """

    def __init__(self, tokenizer: Path, vocabulary: int, ends: Collection[int]) -> None:
        self._tokenizer = tokenizer
        self._vocabulary = vocabulary
        self._ends = sorted(ends)
        self._compiled = functools.lru_cache(maxsize=_KEPT)(self._compile)

    def start(self, constraint: Constraint) -> Grammar:
        """The beginning of a language.

        Raises:
            InvalidRequest: if it is none, with the cause.
        """
        return self._compiled(constraint).copy()

    def _compile(self, constraint: Constraint) -> Grammar:
        name = _NAMES[constraint.kind]
        if len(constraint.text) > _MOST_BYTES:
            raise InvalidRequest(
                f"{name} has {len(constraint.text)} characters, and may have {_MOST_BYTES}. Shorten it.",
                param="constraint",
            )
        try:
            text = _as_grammar(constraint)
        except Exception as error:  # some readers of grammars raise nothing more special
            raise InvalidRequest(f"{name} cannot be read: {_line(str(error))}.", param="constraint") from None
        matcher = LLMatcher(self._vocabulary_of, text, log_level=0, limits=_LIMITS)
        if matcher.is_error():
            raise InvalidRequest(f"output cannot be held to {name}: {_line(matcher.get_error())}.", param="constraint")
        return Grammar(matcher, self._vocabulary)

    @functools.cached_property
    def _vocabulary_of(self) -> LLTokenizer:
        text = json.dumps(byte_level(json.loads(self._tokenizer.read_text(encoding="utf-8"))))
        ends = self._ends or None
        try:
            return LLTokenizer(text, n_vocab=self._vocabulary, eos_token=ends)
        except ValueError:  # it has more tokens than the model
            return LLTokenizer(text, eos_token=ends)


def byte_level(tokenizer: dict[str, Any]) -> dict[str, Any]:
    """A tokenizer.json whose decoder says plainly that tokens are bytes, if they are.

    Converted tokenizers list several decoders, the byte-level one last; libraries go by the first.
    """
    decoders = (tokenizer.get("decoder") or {}).get("decoders") or ()
    plain = next((decoder for decoder in decoders if decoder.get("type") == "ByteLevel"), None)
    return tokenizer if plain is None else {**tokenizer, "decoder": plain}


def _as_grammar(constraint: Constraint) -> str:
    """The constraint in llguidance's own form."""
    kind, text = constraint.kind, constraint.text
    made: str
    if kind == "regex":
        made = LLMatcher.grammar_from_regex(text)
    elif kind == "grammar":
        made = LLMatcher.grammar_from_lark(any_to_lark(text))
    elif kind == "choice":
        choices = json.loads(text)
        if not isinstance(choices, list) or not choices or not all(isinstance(choice, str) for choice in choices):
            raise ValueError("it must be a list of at least one text")
        quoted = (json.dumps(choice, ensure_ascii=False) for choice in choices)
        made = LLMatcher.grammar_from_lark(f"start: CHOICE\nCHOICE: {' | '.join(quoted)}")
    else:
        schema = json.loads(text or _ANY_OBJECT)
        made = LLMatcher.grammar_from_json_schema(json.dumps(schema), overrides=_JSON)
    return made


def _line(text: str) -> str:
    if "panicked" in text or "panic:" in text:
        return "it is more than the compiler takes"
    return " ".join(text.split())[:300].rstrip(".")
