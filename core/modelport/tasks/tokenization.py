"""Texts to the tokens that a model reads, and back: what counts, cuts and highlights text needs, without running the model."""

from __future__ import annotations

from typing import Any

import msgspec

from modelport.contract.errors import InvalidRequest
from modelport.contract.task import Task
from modelport.tasks.text import MOST_INPUTS

__all__ = [
    "DETOKENIZATION",
    "TOKENIZATION",
    "DetokenizationRequest",
    "DetokenizationResult",
    "TokenSpan",
    "TokenizationRequest",
    "TokenizationResult",
]


class TokenizationRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Texts to tokenise.

    Args:
        inputs: One text or several, at most 2048.
        add_special_tokens: Whether to add the tokens that the model expects around a text.
    """

    inputs: str | list[str]
    add_special_tokens: bool = True

    def __post_init__(self) -> None:
        _refuse_crowd("inputs", len(self.inputs) if isinstance(self.inputs, list) else 1)


class TokenSpan(msgspec.Struct, kw_only=True):
    """A token: `text` is what it stands for in the text, from the character `start` to before `stop`. A special token that was
    added stands nowhere, and `text` is its name."""

    id: int
    text: str
    special: bool
    start: int | None = None
    stop: int | None = None


class TokenizationResult(msgspec.Struct, kw_only=True):
    """The tokens of each text."""

    results: list[list[TokenSpan]]


TOKENIZATION: Task[TokenizationRequest, TokenizationResult, Any] = Task(
    "tokenization", TokenizationRequest, TokenizationResult, summary="Texts to tokens"
)


class DetokenizationRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Token ids to write as text.

    Args:
        ids: The ids of one text, or of several, at most 2048.
        skip_special_tokens: Whether special tokens are left out.
    """

    ids: list[int | list[int]]
    skip_special_tokens: bool = True

    def __post_init__(self) -> None:
        if len({type(entry) for entry in self.ids}) > 1:
            raise InvalidRequest("ids mixes ids and lists of ids; send the ids of one text, or a list for each.", param="ids")
        _refuse_crowd("ids", len(self.ids) if self.ids and isinstance(self.ids[0], list) else 1)


class DetokenizationResult(msgspec.Struct, kw_only=True):
    """The texts."""

    results: list[str]


DETOKENIZATION: Task[DetokenizationRequest, DetokenizationResult, Any] = Task(
    "detokenization", DetokenizationRequest, DetokenizationResult, summary="Tokens to texts"
)


def _refuse_crowd(field: str, count: int) -> None:
    if count > MOST_INPUTS:
        raise InvalidRequest(
            f"{field} has {count} entries, and a request holds at most {MOST_INPUTS}. Send several requests.", param=field
        )
