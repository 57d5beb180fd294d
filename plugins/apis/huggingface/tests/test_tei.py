"""TEI's routes, shape by shape, and its errors."""

from __future__ import annotations

import base64
from typing import Any

import msgspec
import numpy as np
import pytest

from modelport.contract import InputTooLong, ModelFailed, ModelInfo, Unavailable
from modelport.contract.task import Task

from .fakes import fake_host, served

EMBEDDER = ModelInfo(
    id="embedder", tasks=("feature-extraction", "tokenization", "detokenization"), context_length=64, pooling="mean"
)
RANKER = ModelInfo(id="ranker", tasks=("text-ranking", "text-classification", "tokenization"), labels=("LABEL_0",))
CLASSIFIER = ModelInfo(id="classifier", tasks=("text-classification", "tokenization"), labels=("no", "yes"))


class Tokenwise(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    inputs: str | list[str | int | list[int]]
    prompt_name: str | None = None
    truncate: bool = False
    truncation_direction: str = "right"


class TokenVectors(msgspec.Struct, kw_only=True):
    results: list[np.ndarray]


class SparseValue(msgspec.Struct):
    index: int
    value: float


class SparseVectors(msgspec.Struct, kw_only=True):
    results: list[list[SparseValue]]


async def post(host: Any, path: str, **body: Any) -> Any:
    async with served(host) as http:
        response = await http.post(path, json=body)
    assert response.status_code == 200, response.text
    return response


async def test_vectors_are_always_nested_and_have_headers():
    host = fake_host(models=(EMBEDDER,))
    response = await post(host, "/embed", inputs="hello")
    assert response.json() == [[1, 0, 0, 0]]
    assert host.calls[0].request.normalize is True, "TEI's default"
    for name in ("compute-time", "compute-characters", "compute-tokens", "total-time", "tokenization-time", "queue-time"):
        assert float(response.headers[f"x-{name}"]) >= 0, name
    assert response.headers["x-compute-characters"] == "5"
    assert response.headers["x-compute-type"]
    asked = {"normalize": False, "truncate": True, "truncation_direction": "Left", "prompt_name": "query", "dimensions": 2}
    assert (await post(host, "/embed", inputs=["a", "b"], **asked)).json() == [[1, 0], [0, 1]]
    request = host.calls[1].request
    assert (request.normalize, request.truncate, request.prompt_name) == (False, True, "query")
    assert request.truncation_direction == "left"
    assert (await post(host, "/embed", inputs=[[5, 6], [7]])).json() == [[1, 0, 0, 0], [0, 1, 0, 0]]


async def test_a_vector_for_each_token():
    task = Task("token-embedding", Tokenwise, TokenVectors)
    host = fake_host(task, answer=lambda *_, **__: TokenVectors(results=[np.ones((2, 3), np.float32)]))
    assert (await post(host, "/embed_all", inputs="a", truncate=True)).json() == [[[1, 1, 1], [1, 1, 1]]]
    assert host.calls[0].request.truncate is True


async def test_sparse_vectors():
    task = Task("sparse-embedding", Tokenwise, SparseVectors)
    host = fake_host(task, answer=lambda *_, **__: SparseVectors(results=[[SparseValue(5, 0.5)]]))
    assert (await post(host, "/embed_sparse", inputs="a")).json() == [[{"index": 5, "value": 0.5}]]


async def test_similarity():
    host = fake_host(models=(EMBEDDER,))
    body = {"inputs": {"source_sentence": "a", "sentences": ["b", "c"]}, "parameters": {"truncate": True}}
    assert (await post(host, "/similarity", **body)).json() == [0, 0]
    assert (host.calls[0].request.inputs, host.calls[0].request.truncate) == (["a", "b", "c"], True)


async def test_openais_form():
    host = fake_host(models=(EMBEDDER,))
    found = (await post(host, "/embeddings", input=["a", "b"], model="any name", user="me")).json()
    assert [(each["object"], each["index"], each["embedding"]) for each in found["data"]] == [
        ("embedding", 0, [1, 0, 0, 0]),
        ("embedding", 1, [0, 1, 0, 0]),
    ]
    assert (found["object"], found["model"], found["usage"]) == ("list", "embedder", {"prompt_tokens": 3, "total_tokens": 3})
    packed = (await post(host, "/embeddings", input="a", encoding_format="base64")).json()["data"][0]["embedding"]
    assert np.frombuffer(base64.b64decode(packed), "<f4").tolist() == [1, 0, 0, 0]


async def test_rankings():
    host = fake_host(models=(RANKER,))
    assert (await post(host, "/rerank", query="q", texts=["a", "b"])).json() == [
        {"index": 0, "score": 1.0},
        {"index": 1, "score": 0.5},
    ]
    found = (await post(host, "/rerank", query="q", texts=["a", "b"], return_text=True, raw_scores=True, truncate=True)).json()
    assert [each["text"] for each in found] == ["a", "b"]
    assert (host.calls[1].request.raw_scores, host.calls[1].request.truncate) == (True, True)
    assert (await post(host, "/", query="q", texts=["a"])).json() == [{"index": 0, "score": 1.0}]


@pytest.mark.parametrize(
    ("inputs", "asked", "nested"),
    [
        ("a", ["a"], False),
        (["a", "b"], [("a", "b")], False),
        ([["a"], ["b", "c"]], ["a", ("b", "c")], True),
        (["a"], ["a"], False),
    ],
)
async def test_labels_of_a_text_a_pair_and_a_batch(inputs, asked, nested):
    host = fake_host(models=(CLASSIFIER,))
    found = (await post(host, "/predict", inputs=inputs, raw_scores=True)).json()
    assert host.calls[0].request.inputs == asked
    assert host.calls[0].request.function_to_apply == "none"
    first = found[0] if nested else found
    assert first == [{"label": "yes", "score": 0.75}, {"label": "no", "score": 0.25}]


async def test_tokens_are_nested_and_special_ones_have_no_place():
    host = fake_host(models=(EMBEDDER,))
    assert (await post(host, "/tokenize", inputs="a")).json() == [
        [
            {"id": 1, "text": "<s>", "special": True, "start": None, "stop": None},
            {"id": 97, "text": "a", "special": False, "start": 0, "stop": 1},
        ]
    ]
    assert [[each["id"] for each in tokens] for tokens in (await post(host, "/tokenize", inputs=["a", "b"], add_special_tokens=False)).json()] == [[97], [98]]  # fmt: skip  # noqa: E501
    assert (await post(host, "/decode", ids=[97, 98])).json() == ["ab"]
    assert (await post(host, "/decode", ids=[[97], [98]], skip_special_tokens=False)).json() == ["a", "b"]
    assert host.calls[-1].request.skip_special_tokens is False


@pytest.mark.parametrize(
    ("model", "kind"),
    [
        (EMBEDDER, {"embedding": {"pooling": "mean"}}),
        (RANKER, {"reranker": {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}}),
        (CLASSIFIER, {"classifier": {"id2label": {"0": "no", "1": "yes"}, "label2id": {"no": 0, "yes": 1}}}),
    ],
)
async def test_info_says_what_the_model_is(model, kind):
    async with served(fake_host(models=(model,))) as http:
        info = (await http.get("/info")).json()
        assert (await http.get("/")).status_code == (await http.get("/ping")).status_code == 200
    assert (info["model_id"], info["model_type"], info["max_input_length"]) == (model.id, kind, model.context_length)


async def test_vertex():
    found = (await post(fake_host(models=(EMBEDDER,)), "/vertex", instances=[{"inputs": "a"}, {"inputs": "b"}])).json()
    assert found == {"predictions": [[[1, 0, 0, 0]], [[1, 0, 0, 0]]]}


# -------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("path", "body", "status", "kind"),
    [
        ("/embed", {"inputs": []}, 400, "Empty"),
        ("/embed", {"inputs": ""}, 400, "Empty"),
        ("/rerank", {"query": "q", "texts": []}, 400, "Empty"),
        ("/embed", {"inputs": ["a"] * 2049}, 413, "Validation"),
        ("/embed", {"inputs": "a", "typo": 1}, 422, "Validation"),
        ("/predict", {"inputs": [["a", "b", "c"]]}, 422, "Validation"),
        ("/predict", {"inputs": "a", "truncation_direction": "left"}, 422, "Validation"),
        ("/decode", {"ids": [97, [98]]}, 422, "Tokenizer"),
        ("/tokenize", {"inputs": []}, 400, "Empty"),
        ("/", {"inputs": 5}, 422, "Validation"),
    ],
)
async def test_what_is_wrong_has_teis_words(path, body, status, kind):
    models = (RANKER,) if path in ("/rerank", "/predict") else (EMBEDDER,)
    host = fake_host(models=models)
    async with served(host) as http:
        response = await http.post(path, json=body)
    assert (response.status_code, response.json()["error_type"]) == (status, kind)
    assert host.calls == []


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (InputTooLong("70 tokens.", param="inputs"), 422, "Validation"),
        (ModelFailed("It died."), 424, "Backend"),
        (Unavailable("It is loading.", retry_after_s=3), 503, "Unhealthy"),
    ],
)
async def test_failures_have_teis_words_also_on_shared_paths(error, status, kind):
    host = fake_host(models=(EMBEDDER,))
    host.failure = error
    async with served(host) as http:
        for path in ("/embed", "/", "/tokenize"):
            response = await http.post(path, json={"inputs": "a"})
            assert response.status_code == status
            assert response.json() == {"error": error.message, "error_type": kind}
        response = await http.post("/embeddings", json={"input": "a"})
    named = f"input: {error.message}" if error.param else error.message
    assert response.json() == {"message": named, "code": status, "type": kind}
    if error.retry_after_s:
        assert response.headers["retry-after"] == "3"
