"""Log probabilities in the two shapes of this dialect: chat's list of tokens, and the older parallel lists."""

from __future__ import annotations

import codecs
from collections.abc import Sequence

import msgspec

from modelport.tasks.text import TextToken

__all__ = ["ChatLogprobs", "LegacyLogprobs", "LegacyScribe"]

_FLOOR = -9999.0
"""What OpenAI writes for a probability of nought; JSON has no infinity."""


class TokenInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A token, with the bytes that its text may not show."""

    token: str
    logprob: float
    bytes: list[int]


class ChosenToken(TokenInfo, frozen=True, kw_only=True):
    """The token of a step, and the likeliest ones."""

    top_logprobs: list[TokenInfo]


class ChatLogprobs(msgspec.Struct, frozen=True, kw_only=True):
    """Chat's shape."""

    content: list[ChosenToken]
    refusal: None = None

    @classmethod
    def of(cls, tokens: Sequence[TextToken] | None) -> ChatLogprobs | None:
        """The shape of `tokens`; None if there are none."""
        if not tokens:
            return None
        return cls(
            content=[
                ChosenToken(
                    token=token.text,
                    logprob=_finite(token.logprob),
                    bytes=list(_bytes(token)),
                    top_logprobs=[
                        TokenInfo(token=top.text, logprob=_finite(top.logprob), bytes=list(_bytes(top)))
                        for top in token.top or ()
                    ],
                )
                for token in tokens
            ]
        )


class LegacyLogprobs(msgspec.Struct, frozen=True, kw_only=True):
    """The shape of completions: four lists, one place per token."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None] | None
    text_offset: list[int]


class LegacyScribe:
    """Writes the legacy shape of one choice, piece by piece, and keeps count of where in the text it is.

    Args:
        top: Whether likeliest tokens were asked for; without, `top_logprobs` is null as OpenAI has it.
    """

    def __init__(self, *, top: bool) -> None:
        self._top = top
        self._offset = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def write(self, tokens: Sequence[TextToken] | None) -> LegacyLogprobs | None:
        """The shape of the next tokens; None if there are none."""
        if not tokens:
            return None
        offsets = []
        for token in tokens:
            offsets.append(self._offset)
            self._offset += len(self._decoder.decode(_bytes(token)))
        return LegacyLogprobs(
            tokens=[_key(token) for token in tokens],
            token_logprobs=[None if token.logprob is None else _finite(token.logprob) for token in tokens],
            top_logprobs=[_likeliest(token) for token in tokens] if self._top else None,
            text_offset=offsets,
        )


def _likeliest(token: TextToken) -> dict[str, float] | None:
    """The likeliest tokens and the chosen one; None for a prompt's first token, which nothing predicted."""
    if token.logprob is None:
        return None
    return {_key(top): _finite(top.logprob) for top in token.top or ()} | {_key(token): _finite(token.logprob)}


def _key(token: TextToken) -> str:
    """The text of a token, or its bytes spelt out where they are no text, so that no two tokens look alike."""
    try:
        token.data.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in token.data)
    return token.text


def _bytes(token: TextToken) -> bytes:
    return token.data or token.text.encode()


def _finite(logprob: float | None) -> float:
    return _FLOOR if logprob is None else max(logprob, _FLOOR)
