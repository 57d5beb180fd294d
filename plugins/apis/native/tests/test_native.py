from __future__ import annotations

import msgspec
import numpy as np
import pytest

from modelport.contract import ModelFailed, Task
from modelport.contract.host import ModelInfo
from modelport.testing.answers import MODELS, TASKS, answer
from modelport.testing.api import connected
from modelport.testing.fake_host import FakeHost, FakePrincipal
from modelport_api_native import Native


class ShoutRequest(msgspec.Struct):
    text: str
    stream: str = ""


class ShoutResult(msgspec.Struct):
    text: str


SHOUT = Task("shout", ShoutRequest, ShoutResult)


def answers(task, request, stream=False):
    return ShoutResult(request.text.upper()) if task == "shout" else answer(task, request, stream)


@pytest.fixture
def host():
    keys = {"admin-key": FakePrincipal("a"), "infer-key": FakePrincipal("i", frozenset({"infer"}), frozenset({"embedder"}))}
    models = (*MODELS, ModelInfo(id="loud", tasks=("shout",), state="ready"))
    return FakeHost(models, (*TASKS, SHOUT), answers, keys)


@pytest.fixture
async def client(host):
    async with connected(Native(), host, "admin-key") as opened:
        yield opened


def events(response):
    return [msgspec.json.decode(event.split(b"data: ")[1]) for event in response.content.split(b"\n\n") if b"data: " in event]


async def test_a_bare_request_is_answered_with_lists(client):
    response = await client.post("/v1/infer/embedder", json={"inputs": ["a", "b"]})
    body = response.json()
    assert body["result"] == {"embeddings": [[0.0, 1.0, 2.0, 3.0], [4.0, 5.0, 6.0, 7.0]]}
    assert (body["model"], body["task"], body["usage"]) == ("embedder", "feature-extraction", {"prompt_tokens": 3})
    assert body["timings"]["run_s"] > 0


async def test_arrays_come_as_base64_where_asked(client):
    from modelport.contract.task import Tensor

    response = await client.post("/v1/infer/embedder", json={"inputs": "a", "arrays": "base64"})
    tensor = msgspec.convert(response.json()["result"]["embeddings"], Tensor)
    assert np.array_equal(tensor.numpy(), np.arange(4, dtype=np.float32).reshape(1, 4))


async def test_a_tasks_own_field_named_like_ours_needs_the_envelope(client, host):
    response = await client.post("/v1/infer/loud", json={"request": {"text": "hi", "stream": "x"}, "task": "shout"})
    assert response.json()["result"] == {"text": "HI"}
    assert host.calls[-1].request == ShoutRequest("hi", "x")


async def test_options_reach_the_host_with_the_request_id(client, host):
    body = {"inputs": "a", "options": {"deadline_s": 2.5, "priority": 3, "hardware": "cpu"}}
    await client.post("/v1/infer/embedder", json=body, headers={"x-request-id": "r-1"})
    options = host.calls[-1].options
    assert (options.deadline_s, options.priority, options.hardware, options.request_id) == (2.5, 3, "cpu", "r-1")


async def test_an_alias_and_an_id_with_a_slash_are_found(client):
    assert (await client.post("/v1/infer/embed", json={"inputs": "a"})).json()["model"] == "embedder"
    for path in ("/v1/infer/org/chat", "/v1/infer/org%2Fchat"):
        response = await client.post(path, json={"messages": [{"role": "user", "content": "hi"}]})
        assert response.json()["result"]["choices"] == [{"text": "Hello"}]


@pytest.mark.parametrize(
    ("path", "body", "status", "param", "says"),
    [
        ("nothing", {"inputs": "a"}, 404, "model", "There is no model 'nothing'."),
        ("embeder", {"inputs": "a"}, 404, "model", "Did you mean 'embedder'?"),
        ("ranker", {"task": "text-generation", "prompt": "a"}, 400, "task", "It does: text-ranking, text-classification."),
        ("embedder", {"inputs": 3}, 400, "inputs", "The field 'inputs' is wrong: expected str | array, got int."),
        ("embedder", {}, 400, "inputs", "The field 'inputs' is required."),
        ("embedder", {"inputs": "a", "normalise": True}, 400, "normalise", "Unknown field 'normalise'."),
        ("embedder", {"inputs": "a", "normalise": True}, 400, "normalise", "takes: inputs, normalize, dimensions"),
        ("embedder", {"request": {"inputs": 3}}, 400, "request.inputs", "'request.inputs' is wrong"),
        ("embedder", {"request": {"inputs": "a"}, "strem": True}, 400, "strem", "Unknown field 'strem'."),
        ("embedder", {"inputs": "a", "stream": True}, 400, "stream", "does not stream"),
        ("embedder", {"inputs": "a", "stream": "yes"}, 400, "stream", "expected bool, got str"),
        ("embedder", {"inputs": "a", "options": {"prio": 1}}, 400, "options.prio", "Unknown field 'options.prio'."),
        ("embedder", {"inputs": "a", "options": {"priority": 11}}, 400, "options.priority", "<= 10"),
        ("embedder", {"inputs": ["a"] * 2049}, 400, "inputs", "2049 entries, and a request holds at most 2048"),
        ("embedder", {"request": {"inputs": [[1]] * 2049}}, 400, "inputs", "at most 2048"),
        ("ranker", {"query": "q", "documents": ["a"] * 1001}, 400, "documents", "at most 1000"),
        ("ranker", {"task": "text-classification", "inputs": ["a"] * 2049}, 400, "inputs", "at most 2048"),
        ("org/chat", {"prompt": "a", "logprobs": 21}, 400, "logprobs", "from 0 to 20"),
        ("org/chat", {"prompt": "a", "prompt_logprobs": 10**6}, 400, "prompt_logprobs", "from 0 to 20"),
        ("org/chat", {"prompt": "a", "stream": True, "logprobs": -1}, 400, "logprobs", "from 0 to 20"),
        ("org/chat", {"messages": [{"role": 1}]}, 400, "messages.0.role", "expected str, got int"),
        ("loud", {"text": "a", "volume": 1}, 400, "volume", "The task 'shout' takes: text, stream."),
    ],
)
async def test_wrong_requests_are_told_what_is_wrong(client, host, path, body, status, param, says):
    response = await client.post(f"/v1/infer/{path}", json=body)
    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (status, param)
    assert says in error["message"]
    assert host.calls == []


async def test_a_stream_is_deltas_and_an_end(client):
    response = await client.post("/v1/infer/org/chat", json={"prompt": "a", "stream": True})
    assert response.headers["content-type"].startswith("text/event-stream")
    *deltas, end = events(response)
    assert [event["delta"].get("text") for event in deltas] == ["Hel", "lo", None]
    assert (end["done"], end["model"], end["task"]) == (True, "org/chat", "text-generation")
    assert end["usage"]["completion_tokens"] == 3


async def test_a_stream_that_fails_ends_with_the_error(client, host):
    host.failure_midway = ModelFailed("The worker died.")
    response = await client.post("/v1/infer/org/chat", json={"prompt": "a", "stream": True})
    assert events(response)[-1] == {"error": {"type": "model_failed", "message": "The worker died.", "param": None}}
    assert b"event: error\n" in response.content


async def test_the_catalogue_lists_models_and_schemas(client):
    body = (await client.get("/v1/catalog")).json()
    assert [model["id"] for model in body["models"]] == ["embedder", "org/chat", "ranker", "speaker", "loud"]
    generation = body["tasks"]["text-generation"]
    assert generation["streams"] is True
    assert set(generation["schema"]) == {"request", "result", "delta", "$defs"}
    assert "ShoutRequest" in body["tasks"]["shout"]["schema"]["$defs"]


async def test_models_can_be_looked_at(client):
    assert (await client.get("/v1/models/org/chat/info")).json()["context_length"] == 64
    assert (await client.get("/v1/models/embedder/placement")).json()["chosen"] == "fake:0"
    assert (await client.get("/v1/models/nothing/info")).status_code == 404


@pytest.mark.parametrize("body", [{"inputs": ["a"] * 2048}, {"inputs": [1] * 3000}])
async def test_as_much_as_a_request_may_hold_is_answered(client, body):
    assert (await client.post("/v1/infer/embedder", json=body)).status_code == 200


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("/srv/models/secret/mini/", "mini"),
        ("~/models/mini", "mini"),
        ("../mini", "mini"),
        ("data/models/mini", "mini"),
        ("C:\\models\\mini", "mini"),
        ("org/mini", "org/mini"),
        ("org/mini@main", "org/mini@main"),
        ("hf_bert", "hf_bert"),
        ("skill:shout", "skill:shout"),
        ("s3://bucket/models/mini", "s3://bucket/models/mini"),
    ],
)
async def test_where_a_folder_lies_is_told_to_admins_alone(source, shown):
    model = ModelInfo(id="embedder", tasks=("feature-extraction",), source=source)
    assert await shown_to(model, "admin", "infer") == (source, "")
    assert await shown_to(model, "infer") == (shown, "")


async def test_nor_does_the_reason_of_a_failure_tell_it():
    reason = "/srv/models/mini/config.json is not JSON."
    model = ModelInfo(id="embedder", state="failed", source="/srv/models/mini", error=reason)
    assert await shown_to(model, "admin") == ("/srv/models/mini", reason)
    assert await shown_to(model, "infer") == ("mini", "mini/config.json is not JSON.")


async def shown_to(model, *scopes):
    """The source and the error of a model, as a key with these scopes sees them everywhere."""
    host = FakeHost([model], TASKS, answer, {"key": FakePrincipal("k", frozenset(scopes))})
    async with connected(Native(), host, "key") as client:
        info = (await client.get(f"/v1/models/{model.id}/info")).json()
        assert (await client.get("/v1/catalog")).json()["models"] == [info]
    return info["source"], info["error"]


async def test_models_are_loaded_and_unloaded_by_admins(client, host):
    assert (await client.post("/v1/models/org/chat/load")).json()["state"] == "ready"
    assert (await client.post("/v1/models/embedder/unload")).json()["state"] == "unloaded"
    assert host.actions == [("load", "org/chat"), ("unload", "embedder")]


async def test_auto_needs_a_task_and_is_the_hosts_choice(client, host):
    await client.post("/v1/infer/auto", json={"inputs": "a", "task": "feature-extraction"})
    assert host.calls[-1].model == "embedder"
    refused = await client.post("/v1/infer/auto", json={"inputs": "a", "task": "knitting"})
    assert (refused.status_code, refused.json()["error"]["type"]) == (400, "wrong_task")


async def test_recommendations_are_listed_and_answers_rated(client, host):
    told = (await client.get("/v1/recommendations", params={"task": "shout"})).json()["recommendations"]
    assert [(each["task"], each["model"]) for each in told] == [("shout", "loud")]
    await client.post("/v1/infer/embedder", json={"inputs": "a"}, headers={"x-request-id": "r-1"})
    rated = await client.post("/v1/feedback", json={"request_id": "r-1", "score": 0.5})
    assert (rated.status_code, rated.content, host.ratings) == (204, b"", [("r-1", 0.5)])
    unknown = await client.post("/v1/feedback", json={"request_id": "r-2", "score": 0.5})
    assert (unknown.status_code, unknown.json()["error"]["param"]) == (404, "request_id")
    wrong = await client.post("/v1/feedback", json={"request_id": "r-1"})
    assert wrong.status_code == 400


async def test_hardware_and_plugins_are_listed(client):
    assert (await client.get("/v1/hardware")).json()["backends"][0]["backend"] == "fake"
    assert (await client.get("/v1/plugins")).json()["plugins"][0]["state"] == "enabled"


async def test_an_infer_key_sees_its_models_and_no_admin_route(host):
    async with connected(Native(), host, "infer-key") as client:
        assert [model["id"] for model in (await client.get("/v1/catalog")).json()["models"]] == ["embedder"]
        assert (await client.post("/v1/infer/embedder", json={"inputs": "a"})).status_code == 200
        assert (await client.post("/v1/infer/loud", json={"text": "a"})).status_code == 404
        for method, path in [
            ("POST", "/v1/models/embedder/load"),
            ("POST", "/v1/models/embedder/unload"),
            ("GET", "/v1/hardware"),
            ("GET", "/v1/plugins"),
        ]:
            response = await client.request(method, path)
            assert response.status_code == 403, path
            assert response.json()["error"]["type"] == "forbidden"
    assert host.actions == []
