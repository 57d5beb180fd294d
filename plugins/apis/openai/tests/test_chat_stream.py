from __future__ import annotations

import json
from importlib.metadata import version

import openai
import pytest

from modelport.contract import ModelFailed, Unavailable
from modelport.tasks.text import GenerationDelta, TextToken, ToolCallDelta

PATH = "/v1/chat/completions"
ASK = [{"role": "user", "content": "Capital of France?"}]
BODY = {"model": "tiny", "messages": ASK, "stream": True}


async def events(http, **more):
    response = await http.post(PATH, json=BODY | more)
    assert response.status_code == 200, response.text
    return [line.removeprefix("data: ") for line in response.text.split("\n\n") if line]


async def test_sdk_streams_an_answer(sdk, host, words):
    host.answers["text-generation"] = words("Par", "is.")
    chunks = [chunk async for chunk in await sdk.chat.completions.create(model="tiny", messages=ASK, stream=True)]
    deltas = [chunk.choices[0].delta for chunk in chunks]
    assert deltas[0].role == "assistant"
    assert [delta.content for delta in deltas] == ["", "Par", "is.", None]
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None, None, None, "stop"]
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
    assert len({(chunk.id, chunk.created, chunk.model) for chunk in chunks}) == 1
    assert host.streams[0].closed


async def test_stream_is_exactly_what_openai_writes(http, host):
    host.answers["text-generation"] = [GenerationDelta(text="Hi", finish_reason="length")]
    role, text, last, done = await events(http)
    assert done == "[DONE]"
    head = json.loads(role)
    shared = {"id": head["id"], "object": "chat.completion.chunk", "created": head["created"], "model": "tiny"}
    shared["system_fingerprint"] = f"modelport-{version('modelport')}"
    first = {"role": "assistant", "content": "", "refusal": None}
    for item, delta, reason in [(role, first, None), (text, {"content": "Hi"}, None), (last, {}, "length")]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        assert json.loads(item) == {**shared, "choices": [choice]}


async def test_response_is_kept_from_caches_and_buffers(http, host, words):
    host.answers["text-generation"] = words("x")
    headers = (await http.post(PATH, json=BODY)).headers
    assert headers["content-type"].startswith("text/event-stream")
    assert headers["cache-control"] == "no-cache"
    assert headers["x-accel-buffering"] == "no"
    assert headers["openai-processing-ms"].isdigit()


async def test_usage_comes_in_a_chunk_of_its_own_if_asked_for(sdk, host, words):
    host.answers["text-generation"] = words("x")
    options = {"include_usage": True}
    stream = await sdk.chat.completions.create(model="tiny", messages=ASK, stream=True, stream_options=options)
    chunks = [chunk async for chunk in stream]
    assert [chunk.usage for chunk in chunks[:-1]] == [None] * 3
    assert chunks[-1].choices == []
    assert chunks[-1].usage.total_tokens == 8


async def test_each_choice_begins_with_its_role(http, host):
    host.answers["text-generation"] = [GenerationDelta(index=i, text="x") for i in (1, 0, 1)]
    choices = [json.loads(item)["choices"][0] for item in (await events(http, n=2))[:-1]]
    begins = [(choice["index"], "role" in choice["delta"]) for choice in choices]
    assert begins == [(1, True), (1, False), (0, True), (0, False), (1, False)]


async def test_tool_calls_stream_in_fragments_that_the_sdk_can_add_up(sdk, host):
    host.answers["text-generation"] = [
        GenerationDelta(tool_calls=[ToolCallDelta(index=0, id="c0", name="weather")]),
        GenerationDelta(tool_calls=[ToolCallDelta(index=0, arguments='{"at"')]),
        GenerationDelta(tool_calls=[ToolCallDelta(index=0, arguments=": 1}"), ToolCallDelta(index=1, id="c1", name="news")]),
        GenerationDelta(finish_reason="tool_calls"),
    ]
    chunks = [c.choices[0] async for c in await sdk.chat.completions.create(model="tiny", messages=ASK, stream=True)]
    fragments = [call for chunk in chunks for call in chunk.delta.tool_calls or ()]
    assert [(f.index, f.id, f.type, f.function.name, f.function.arguments) for f in fragments] == [
        (0, "c0", "function", "weather", ""),
        (0, None, None, None, '{"at"'),
        (0, None, None, None, ": 1}"),
        (1, "c1", "function", "news", ""),
    ]
    assert chunks[-1].finish_reason == "tool_calls"


async def test_parallel_tool_calls_off_streams_only_the_first_call(http, host):
    calls = [ToolCallDelta(index=i, id=f"c{i}", name="weather") for i in range(2)]
    host.answers["text-generation"] = [GenerationDelta(tool_calls=calls), GenerationDelta(tool_calls=calls[1:])]
    sent = await events(http, parallel_tool_calls=False)
    assert '"c0"' in "".join(sent)
    assert '"c1"' not in "".join(sent)
    assert len(sent) == 3


async def test_logprobs_and_reasoning_stream_too(http, host):
    host.answers["text-generation"] = [
        GenerationDelta(reasoning="hm"),
        GenerationDelta(tokens=[TextToken(id=1, text="P", data=b"P", logprob=-1.0)]),
    ]
    _, thought, silent, _ = await events(http, logprobs=True)
    assert json.loads(thought)["choices"][0]["delta"] == {"reasoning_content": "hm"}
    choice = json.loads(silent)["choices"][0]
    assert choice["delta"] == {"content": ""}
    expected = [{"token": "P", "logprob": -1.0, "bytes": [80], "top_logprobs": []}]
    assert choice["logprobs"] == {"content": expected, "refusal": None}


async def test_a_refusal_before_the_first_delta_is_a_status(sdk, host):
    host.answers["text-generation"] = Unavailable("'tiny' is loading: 40 % read.", retry_after_s=3)
    with pytest.raises(openai.InternalServerError) as caught:
        await sdk.chat.completions.create(model="tiny", messages=ASK, stream=True)
    assert (caught.value.status_code, caught.value.code) == (503, "server_overloaded")


@pytest.mark.parametrize("last", [ModelFailed("The model's process died."), GenerationDelta(finish_reason="error")])
async def test_a_failure_after_the_first_delta_is_an_event_and_the_end(sdk, http, host, last):
    host.answers["text-generation"] = [GenerationDelta(text="Par"), last]
    chunks = await sdk.chat.completions.create(model="tiny", messages=ASK, stream=True)
    text = ""

    async def read() -> None:
        nonlocal text
        async for chunk in chunks:
            text += chunk.choices[0].delta.content or ""

    with pytest.raises(openai.APIError) as caught:
        await read()
    assert text == "Par"
    assert caught.value.code == "model_failed"
    *_, final = await events(http)
    assert set(json.loads(final)) == {"error"}
    assert set(json.loads(final)["error"]) == {"message", "type", "param", "code"}
    assert all(stream.closed for stream in host.streams)
