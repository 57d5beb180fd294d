"""TGI's server-sent events: one for each token, the last with the whole text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from modelport.contract.dialect import renamed
from modelport.contract.errors import ModelportError
from modelport.contract.host import DeltaStream
from modelport.streaming import EventStream
from modelport.tasks.text import GenerationDelta, TextToken
from modelport_api_huggingface.errors import error_body
from modelport_api_huggingface.generation import NAMES, GenerateBody, GenerateParams, finish_reason, token_of

__all__ = ["event_stream"]


def event_stream(stream: DeltaStream, body: GenerateBody, headers: dict[str, str], end_tokens: Sequence[int] = ()) -> EventStream:
    """The response that writes `stream`, of a model that ends texts with one of `end_tokens`. A failure is an event with `error`,
    and the end."""
    return EventStream([stream], _Writer(stream, body, next(iter(end_tokens), None)), headers)


def _event(value: dict[str, Any]) -> bytes:
    return b"data: " + msgspec.json.encode(value) + b"\n\n"


class _Writer:
    """Makes events of deltas. The texts of all events together are the generated text.

    The last event waits until the stream has ended, since it says how many tokens there were. If text ended without a token of
    its own, an event of its own carries the end: that of the end token, which engines do not name, or, where they name no tokens
    at all, one without an id.
    """

    def __init__(self, stream: DeltaStream, body: GenerateBody, end_token: int | None) -> None:
        self._stream = stream
        self._end_token = end_token
        self._names_tokens = False
        self._params = body.parameters or GenerateParams()
        self._text = body.inputs if self._params.return_full_text else ""
        self._count = 0
        self._end: GenerationDelta | None = None
        self._final: dict[str, Any] | None = None

    def delta(self, place: int, delta: GenerationDelta) -> bytes:
        shown = delta.text + (delta.stop_sequence or "")
        self._text += shown
        tokens = delta.tokens or []
        self._names_tokens |= bool(tokens)
        events = [self._token(token, text) for token, text in zip(tokens, _texts(tokens, shown), strict=True)]
        if not tokens and (shown or delta.finish_reason is not None):
            end_token = self._end_token if not shown and self._names_tokens else None
            events = [self._numbered({"id": end_token, "text": shown, "logprob": None, "special": not shown})]
        if delta.finish_reason is not None:
            self._end, self._final = delta, events.pop()
        return b"".join(map(_event, events))

    def end(self) -> bytes:
        if self._end is None or self._final is None or self._end.finish_reason is None:
            finish_reason("error", None)
            raise AssertionError
        details = {
            "finish_reason": finish_reason(self._end.finish_reason, self._end.stop_sequence),
            "generated_tokens": self._stream.usage.completion_tokens,
            "input_length": self._stream.usage.prompt_tokens,
            "seed": self._params.seed,
        }
        return _event({**self._final, "generated_text": self._text, "details": details})

    def failure(self, error: ModelportError) -> bytes:
        return b"data: " + error_body(renamed(error, NAMES), "tgi") + b"\n\n"

    def _token(self, token: TextToken, text: str) -> dict[str, Any]:
        event = self._numbered({**token_of(token), "text": text})
        if self._params.top_n_tokens:
            event["top_tokens"] = [token_of(top) for top in token.top or ()]
        return event

    def _numbered(self, token: dict[str, Any]) -> dict[str, Any]:
        self._count += 1
        return {"index": self._count, "token": token, "generated_text": None, "details": None}


def _texts(tokens: list[TextToken], shown: str) -> list[str]:
    """What each token shows of a delta's text: its own where these add up to it, else all of it with the last."""
    own = ["" if token.special else token.text for token in tokens]
    return own if "".join(own) == shown else [*([""] * (len(own) - 1)), shown][: len(own)]
