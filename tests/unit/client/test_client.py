from __future__ import annotations

import httpx
import msgspec
import numpy as np
import pytest

from modelport import AsyncClient, Client
from modelport.contract import (
    ConfigurationError,
    InvalidRequest,
    ModelFailed,
    NotFound,
    Options,
    Overloaded,
    Unauthenticated,
    Unavailable,
)
from modelport.tasks.text import EmbeddingRequest, EmbeddingResult, GenerationDelta
from modelport.testing.answers import MODELS, TASKS, answer
from modelport.testing.api import connected
from modelport.testing.fake_host import FakeHost, FakePrincipal

native = pytest.importorskip("modelport_api_native")


@pytest.fixture
def host():
    return FakeHost(MODELS, TASKS, answer, {"key": FakePrincipal()})


@pytest.fixture
async def client(host):
    async with (
        connected(native.Native(), host) as server,
        AsyncClient("http://testserver", "key", transport=server._transport) as made,
    ):
        yield made


async def test_a_result_of_a_known_task_is_its_struct_with_arrays(client, host):
    answered = await client.infer("embedder", {"inputs": ["a", "b"]}, options=Options(priority=2, request_id="r-9"))
    assert isinstance(answered.result, EmbeddingResult)
    assert np.array_equal(answered.result.embeddings, np.arange(8, dtype=np.float32).reshape(2, 4))
    assert answered.usage.prompt_tokens == 3
    assert host.calls[0].options == Options(priority=2, request_id="r-9")


async def test_a_request_may_be_its_tasks_struct(client, host):
    await client.infer("embed", EmbeddingRequest(inputs="a", dimensions=2), task="feature-extraction")
    assert host.calls[0].request == EmbeddingRequest(inputs="a", dimensions=2)


async def test_a_stream_yields_deltas_of_its_task(client):
    deltas = [delta async for delta in client.stream("org/chat", {"prompt": "a"})]
    assert all(isinstance(delta, GenerationDelta) for delta in deltas)
    assert "".join(delta.text for delta in deltas) == "Hello"


async def test_errors_come_back_as_what_they_were(client, host):
    with pytest.raises(NotFound, match="Did you mean 'embedder'"):
        await client.infer("embeder", {"inputs": "a"})
    with pytest.raises(InvalidRequest) as caught:
        await client.infer("embedder", {"inputs": 3})
    assert caught.value.param == "request.inputs"
    host.failure = Overloaded("Full.", retry_after_s=2.0)
    with pytest.raises(Overloaded) as full:
        await client.infer("embedder", {"inputs": "a"})
    assert full.value.retry_after_s == 2.0


async def test_a_stream_that_fails_midway_raises_what_happened(client, host):
    host.failure_midway = ModelFailed("The worker died.")
    stream = client.stream("org/chat", {"prompt": "a"})
    assert [(await anext(stream)).text for _ in range(3)] == ["Hel", "lo", ""]
    with pytest.raises(ModelFailed, match="worker died"):
        await anext(stream)


async def test_a_stream_that_is_refused_raises_at_once(client, host):
    host.failure = Unavailable("It is loading.")
    with pytest.raises(Unavailable, match="loading"):
        await anext(client.stream("org/chat", {"prompt": "a"}))


async def test_models_can_be_managed(client, host):
    assert [info.id for info in await client.models()] == ["embedder", "org/chat", "ranker", "speaker"]
    assert (await client.info("org/chat")).context_length == 64
    assert (await client.placement("embedder"))["chosen"] == "fake:0"
    assert (await client.load("org/chat")).state == "ready"
    assert (await client.unload("org/chat")).state == "unloaded"
    assert (await client.hardware())[0]["backend"] == "fake"
    assert (await client.plugins())[0]["name"] == "fake"
    (told,) = await client.recommendations("text-generation")
    assert told in await client.recommendations()
    assert await client.ready()
    assert host.actions == [("load", "org/chat"), ("unload", "org/chat")]


async def test_a_missing_key_is_unauthenticated(host):
    async with (
        connected(native.Native(), host) as server,
        AsyncClient("http://testserver", transport=server._transport) as client,
    ):
        with pytest.raises(Unauthenticated):
            await client.models()


def test_no_server_is_a_sentence_with_what_to_do():
    with Client("http://127.0.0.1:9") as client:
        assert not client.ready()
        with pytest.raises(Unavailable, match="modelport serve"):
            client.models()


def replying(*responses: httpx.Response) -> Client:
    waiting = iter(responses)
    return Client("http://server", transport=httpx.MockTransport(lambda request: next(waiting)))


@pytest.mark.parametrize("address", ["", "foo", "localhost:8000", "ftp://x", "http://", "http://[::1"])
@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_an_address_that_is_none_is_refused(kind, address):
    with pytest.raises(ConfigurationError, match="is not the address of a server"):
        kind(address)


def test_the_synchronous_client_answers_and_streams():
    body = {"model": "m", "task": "new", "result": {"a": {"dtype": "int64", "shape": [1], "data": "AQAAAAAAAAA="}, "b": [1]}}
    text = 'data: {"delta": {"text": "x"}}\n\n: still here\n\ndata: {"done": true, "model": "m", "task": "new"}\n\n'
    headers = {"content-type": "text/event-stream"}
    with replying(httpx.Response(200, json=body), httpx.Response(200, text=text, headers=headers)) as client:
        result = client.infer("m", {"x": 1}).result
        assert result["b"] == [1]
        assert np.array_equal(result["a"], np.array([1]))
        assert list(client.stream("m", {"x": 1})) == [{"text": "x"}]


def test_a_stream_without_an_end_is_not_taken_for_a_whole_one():
    with (
        replying(httpx.Response(200, text='data: {"delta": {"text": "x"}}\n\n')) as client,
        pytest.raises(ModelFailed, match="broke off"),
    ):
        list(client.stream("m", {"x": 1}))


def test_a_server_that_is_no_modelport_is_told_apart():
    with replying(httpx.Response(502, text="<html>"), httpx.Response(200, text="<html>")) as client:
        for says in ("502", "not the native API"):
            with pytest.raises(Exception, match=says):
                client.models()


def test_a_struct_with_an_array_is_sent_as_base64():
    from modelport.client.wire import infer_body

    class Points(msgspec.Struct):
        at: np.ndarray

    sent = msgspec.json.decode(infer_body(Points(np.zeros(2, np.float32)), "t", Options(), stream=False))
    assert sent["request"]["at"] == {"dtype": "float32", "shape": [2], "data": "AAAAAAAAAAA="}
