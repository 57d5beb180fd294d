"""Streams as events: what a client gets, and what a source feels, whatever the dialect."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from modelport.contract import ModelFailed, Timings, Usage
from modelport.contract.errors import ModelportError
from modelport.streaming import EventStream


class Source:
    """A stream that follows a script of deltas, errors to raise, and functions to await."""

    def __init__(self, *script: Any) -> None:
        self.model, self.usage, self.timings = "tiny", Usage(), Timings()
        self.closed = False
        self._script = list(script)

    def __aiter__(self) -> Source:
        return self

    async def __anext__(self) -> Any:
        while self._script:
            step = self._script.pop(0)
            if isinstance(step, Exception):
                raise step
            if not callable(step):
                return step
            await step()
        raise StopAsyncIteration

    async def aclose(self) -> None:
        self.closed = True


class Plain:
    """Writes a delta, which is a text, as it is."""

    def delta(self, place: int, delta: str) -> bytes:
        return delta and f"{place}{delta}".encode()

    def end(self) -> bytes:
        return b"end"

    def failure(self, error: ModelportError) -> bytes:
        return f"failed: {error.message}".encode()


async def answer(*sources: Source, took: Callable[[bytes], Any] = lambda _: None, keep_alive_s: float = 60.0) -> list[bytes]:
    """The bodies that were sent, in order. `took` is called with each, and awaited if it gives something to await."""
    sent: list[bytes] = []

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.body":
            sent.append(message["body"])
            waiting = took(message["body"])
            if waiting is not None:
                await waiting

    response = EventStream(list(sources), Plain(), keep_alive_s=keep_alive_s).to_asgi_response()
    try:
        await response({}, None, send)
    except ValueError as defect:
        sent.append(b"raised " + str(defect).encode())
    return sent


async def test_deltas_come_in_order_and_then_the_end():
    source = Source("a", "", "b")
    assert await answer(source) == [b"0a", b"0b", b"end"]
    assert source.closed


async def test_silence_is_filled_with_comments_until_the_next_delta():
    heard = asyncio.Event()
    sent = await answer(
        Source("a", heard.wait, "b"), took=lambda body: heard.set() if body.startswith(b":") else None, keep_alive_s=0.001
    )
    assert sent[0] == b"0a"
    assert b": keep-alive\n\n" in sent[1:]
    assert [body for body in sent if not body.startswith(b":")] == [b"0a", b"0b", b"end"]


async def test_several_streams_are_written_as_they_come_and_end_once():
    second = asyncio.Event()
    sent = await answer(Source("a", second.wait, "b"), Source("c"), took=lambda body: second.set() if body == b"1c" else None)
    assert sorted(sent[:2]) == [b"0a", b"1c"]
    assert sent[2:] == [b"0b", b"end"]


async def test_a_failure_is_the_last_that_is_written_and_closes_all_streams():
    forever = asyncio.Event()
    waiting, failing = Source("a", forever.wait), Source(ModelFailed("The worker died."))
    assert (await answer(waiting, failing))[-1] == b"failed: The worker died."
    assert waiting.closed
    assert failing.closed


async def test_a_defect_is_told_to_the_caller_without_its_words_and_raised_for_the_log():
    told, raised = (await answer(Source("a", ValueError("secret"))))[1:]
    assert told.startswith(b"failed: The server failed")
    assert b"secret" not in told
    assert raised == b"raised secret"


async def test_a_slow_reader_is_felt_at_the_source():
    taken = 0

    async def note() -> None:
        nonlocal taken
        taken += 1

    stuck = asyncio.Event()
    source = Source(*(step for _ in range(50) for step in (note, "a")))
    answering = asyncio.create_task(answer(source, took=lambda _: stuck.wait()))
    for _ in range(200):
        await asyncio.sleep(0)
    assert taken == 1
    answering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await answering
    assert source.closed
