from __future__ import annotations

import base64

import numpy as np
import openai
import pytest

from modelport.contract import InputTooLong
from modelport.tasks.text import EmbeddingResult

VECTORS = np.array([[0.25, -1.5, 3.0], [1e-8, 0.1, 7.0]], dtype=np.float32)


@pytest.fixture(autouse=True)
def vectors(host):
    host.answers["feature-extraction"] = lambda request: EmbeddingResult(embeddings=VECTORS)


async def test_sdk_default_which_is_base64_gives_the_same_numbers_as_float(sdk):
    packed = await sdk.embeddings.create(model="org/tiny", input=["a", "b"])
    plain = await sdk.embeddings.create(model="org/tiny", input=["a", "b"], encoding_format="float")
    assert [row.embedding for row in packed.data] == VECTORS.tolist()
    assert [row.embedding for row in plain.data] == VECTORS.tolist()
    assert [row.index for row in packed.data] == [0, 1]
    assert packed.usage.prompt_tokens == packed.usage.total_tokens == 5


async def test_plain_request_without_encoding_format_gets_numbers(http):
    response = await http.post("/v1/embeddings", json={"model": "small", "input": "a"})
    assert response.status_code == 200
    assert response.json() == {
        "object": "list",
        "data": [{"object": "embedding", "index": i, "embedding": row} for i, row in enumerate(VECTORS.tolist())],
        "model": "org/tiny",
        "usage": {"prompt_tokens": 5, "total_tokens": 5},
    }
    assert response.headers["content-type"] == "application/json"
    assert response.headers["openai-processing-ms"].isdigit()


async def test_base64_is_little_endian_float32_even_for_other_arrays(http, host):
    rows = VECTORS.astype(">f8")[:, ::-1]
    host.answers["feature-extraction"] = EmbeddingResult(embeddings=rows)
    body = {"model": "org/tiny", "input": "a", "encoding_format": "base64"}
    data = (await http.post("/v1/embeddings", json=body)).json()["data"]
    assert np.frombuffer(base64.b64decode(data[1]["embedding"]), "<f4").tolist() == VECTORS[1, ::-1].tolist()


@pytest.mark.parametrize("inputs", ["a", ["a", "b"], [1, 2, 3], [[1, 2], [3]]])
async def test_every_form_of_input_reaches_the_task_as_it_is(http, host, inputs):
    await http.post("/v1/embeddings", json={"model": "org/tiny", "input": inputs, "dimensions": 2, "user": "someone"})
    assert host.request.inputs == inputs
    assert host.request.dimensions == 2
    assert not host.request.truncate
    assert host.scopes[0]["path"] == "/v1/embeddings"


async def test_additions_reach_the_task(http, host):
    extras = {"prompt_name": "query", "normalize": False, "truncate_prompt_tokens": -1}
    await http.post("/v1/embeddings", json={"model": "org/tiny", "input": "a", **extras})
    assert (host.request.prompt_name, host.request.normalize, host.request.truncate) == ("query", False, True)


@pytest.mark.parametrize(
    ("inputs", "param"),
    [
        ("", "input"),
        ([], "input"),
        ([""], "input.0"),
        (["a", ""], "input.1"),
        ([[1], []], "input.1"),
        ([1, "a"], "input"),
        ([1, -1], "input.1"),
        ([[1], [2, -1]], "input.1.1"),
        (["a"] * 2049, "input"),
    ],
)
async def test_an_input_without_content_is_refused_by_its_place(refused, inputs, param):
    assert (await refused("/v1/embeddings", {"model": "org/tiny", "input": inputs}))["param"] == param


@pytest.mark.parametrize(
    ("field", "value"), [("dimensions", 0), ("encoding_format", "int8"), ("truncate_prompt_tokens", 9), ("colour", "red")]
)
async def test_a_field_that_cannot_work_is_refused_by_name(refused, field, value):
    error = await refused("/v1/embeddings", {"model": "org/tiny", "input": "a", field: value})
    assert error["param"] == field
    assert field in error["message"]


async def test_too_long_an_input_is_the_sdks_bad_request_under_the_dialects_name(sdk, host):
    host.answers["feature-extraction"] = InputTooLong("'inputs.1' has 900 tokens; the model takes 512.", param="inputs.1")
    with pytest.raises(openai.BadRequestError) as caught:
        await sdk.embeddings.create(model="org/tiny", input=["a", "b"])
    assert caught.value.code == "context_length_exceeded"
    assert caught.value.param == "input.1"
    assert "'input.1' has 900 tokens" in caught.value.message
