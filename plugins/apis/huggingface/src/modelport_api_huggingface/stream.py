"""TGI's server-sent events: one for each token, the last with the whole text."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import Any

import msgspec
from litestar.response import Stream

from modelport.contract.errors import ModelportError
from modelport.contract.host import DeltaStream
from modelport.tasks.text import GenerationDelta, TextToken
from modelport_api_huggingface.errors import error_body, speaking
from modelport_api_huggingface.generation import NAMES, GenerateBody, GenerateParams, finish_reason, token_of

__all__ = ["KEEP_ALIVE_S", "event_stream", "events"]

KEEP_ALIVE_S = 15.0
"""Seconds of silence after which a comment keeps proxies from closing the connection."""

_SILENCE = b": keep-alive\n\n"


def event_stream(stream: DeltaStream, body: GenerateBody, headers: dict[str, str]) -> Stream:
    """The response that writes `stream`."""
    headers = {**headers, "cache-control": "no-cache", "x-accel-buffering": "no"}
    return Stream(events(stream, body), media_type="text/event-stream", status_code=200, headers=headers)


async def events(stream: DeltaStream, body: GenerateBody, silence_s: float = KEEP_ALIVE_S) -> AsyncGenerator[bytes, None]:
    """The bytes of the response. A failure is an event with `error`, and the end."""
    writer = _Writer(body)
    coming: asyncio.Future[Any] | None = None
    try:
        with speaking(NAMES):
            while True:
                coming = asyncio.ensure_future(_next(stream))
                while not (await asyncio.wait({coming}, timeout=silence_s))[0]:
                    yield _SILENCE
                delta = coming.result()
                if delta is None:
                    break
                writer.take(delta)
                while writer.ready:
                    yield _event(writer.ready.pop(0))
        yield _event(writer.last(stream))
    except ModelportError as error:
        yield b"data: " + error_body(error, "tgi") + b"\n\n"
    except Exception:
        failure = ModelportError("The server failed while it wrote this answer. The log has the cause; please report it.")
        yield b"data: " + error_body(failure, "tgi") + b"\n\n"
        raise
    finally:
        if coming is not None and not coming.done():
            coming.cancel()
            with contextlib.suppress(asyncio.CancelledError, ModelportError):
                await coming
        await stream.aclose()


async def _next(stream: DeltaStream) -> GenerationDelta | None:
    return await anext(stream, None)


def _event(value: dict[str, Any]) -> bytes:
    return b"data: " + msgspec.json.encode(value) + b"\n\n"


class _Writer:
    """Makes events of deltas. The texts of all events together are the generated text.

    The last event waits until the stream has ended, since it says how many tokens there were. If text ended without a token of
    its own (the end token is none, and some backends name no tokens), an event without an id carries it.
    """

    def __init__(self, body: GenerateBody) -> None:
        self._params = body.parameters or GenerateParams()
        self._text = body.inputs if self._params.return_full_text else ""
        self._count = 0
        self._end: GenerationDelta | None = None
        self._final: dict[str, Any] | None = None
        self.ready: list[dict[str, Any]] = []

    def take(self, delta: GenerationDelta) -> None:
        """Takes a delta; events that can be sent are `ready`."""
        shown = delta.text + (delta.stop_sequence or "")
        self._text += shown
        tokens = delta.tokens or []
        events = [self._token(token, text) for token, text in zip(tokens, _texts(tokens, shown), strict=True)]
        if not tokens and (shown or delta.finish_reason is not None):
            events = [self._numbered({"id": None, "text": shown, "logprob": None, "special": not shown})]
        if delta.finish_reason is not None:
            self._end, self._final = delta, events.pop()
        self.ready += events

    def last(self, stream: DeltaStream) -> dict[str, Any]:
        """The last event.

        Raises:
            ModelportError: the text did not end well.
        """
        if self._end is None or self._final is None or self._end.finish_reason is None:
            finish_reason("error", None)
            raise AssertionError
        details = {
            "finish_reason": finish_reason(self._end.finish_reason, self._end.stop_sequence),
            "generated_tokens": stream.usage.completion_tokens,
            "input_length": stream.usage.prompt_tokens,
            "seed": self._params.seed,
        }
        return {**self._final, "generated_text": self._text, "details": details}

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
