from __future__ import annotations

import asyncio
import json

import pytest

from modelport.contract import Usage
from modelport.tasks.text import GenerationDelta
from modelport.testing.fake_host import FakePrincipal
from modelport_api_openai.sse import written


class PlainWriter:
    """Writes a delta's text and nothing else."""

    def delta(self, prompt: int, delta: GenerationDelta) -> bytes:
        return delta.text.encode()

    def usage(self, usage: Usage) -> bytes:
        return b""


@pytest.fixture
async def stream(host, words):
    async def opened(*script):
        host.answers["text-generation"] = list(script)
        return await host.stream("text-generation", "tiny", None, FakePrincipal())

    return opened


async def test_silence_is_filled_with_comments_until_the_next_delta(stream):
    heard = asyncio.Event()
    source = await stream(GenerationDelta(text="a"), heard.wait, GenerationDelta(text="b"))
    received = []
    async for item in written([source], PlainWriter(), {}, silence_s=0.001):
        received.append(item)
        if item.startswith(b":"):
            heard.set()
    assert received[0] == b"a"
    assert set(received[1:-2]) == {b": keep-alive\n\n"}
    assert received[-2:] == [b"b", b"data: [DONE]\n\n"]


async def test_a_reader_who_stops_closes_the_source(stream):
    forever = asyncio.Event()
    source = await stream(GenerationDelta(text="a"), forever.wait)
    events = written([source], PlainWriter(), {})
    assert await anext(events) == b"a"
    await events.aclose()
    await asyncio.wait_for(source.gone.wait(), 5)


async def test_a_slow_reader_is_felt_at_the_source(stream):
    taken = []

    async def note() -> None:
        taken.append(len(taken))

    source = await stream(*(step for _ in range(50) for step in (note, GenerationDelta(text="a"))))
    events = written([source], PlainWriter(), {})
    await anext(events)
    for _ in range(200):
        await asyncio.sleep(0)
    assert len(taken) <= 4
    await events.aclose()


async def test_a_defect_is_told_to_the_caller_without_its_words_and_raised_for_the_log(stream):
    source = await stream(GenerationDelta(text="a"), ValueError("secret"))
    events = written([source], PlainWriter(), {})
    assert await anext(events) == b"a"
    error = json.loads((await anext(events)).removeprefix(b"data: "))["error"]
    with pytest.raises(ValueError, match="secret"):
        await anext(events)
    assert error["type"] == "server_error"
    assert "secret" not in error["message"]


async def test_a_client_that_leaves_closes_the_source(app, host):
    forever = asyncio.Event()
    host.answers["text-generation"] = [GenerationDelta(text="a"), forever.wait]
    body = json.dumps({"model": "tiny", "messages": [{"role": "user", "content": "x"}], "stream": True}).encode()
    begun = asyncio.Event()
    incoming = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive():
        if incoming:
            return incoming.pop()
        await begun.wait()
        return {"type": "http.disconnect"}

    async def send(message):
        if b"data: " in message.get("body", b""):
            begun.set()

    path = "/v1/chat/completions"
    headers = [(b"host", b"test"), (b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "scheme": "http",
        "server": ("test", 80),
        "client": ("test", 1),
        "method": "POST",
        "root_path": "",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": headers,
    }
    await asyncio.wait_for(app(scope, receive, send), 5)
    await asyncio.wait_for(host.streams[0].gone.wait(), 5)
