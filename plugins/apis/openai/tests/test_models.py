from __future__ import annotations

import openai
import pytest


async def test_list_holds_every_model_in_openais_form(http, host):
    response = await http.get("/v1/models")
    assert response.json() == {
        "object": "list",
        "data": [
            {"id": "tiny", "object": "model", "created": 1_700_000_000, "owned_by": "someone", "max_model_len": 64},
            {"id": "org/tiny", "object": "model", "created": 0, "owned_by": "modelport"},
        ],
    }
    assert "openai-processing-ms" in response.headers


async def test_sdk_lists_models(sdk):
    assert [model.id async for model in sdk.models.list()] == ["tiny", "org/tiny"]


@pytest.mark.parametrize("name", ["tiny", "org/tiny"])
async def test_sdk_retrieves_a_model_whose_id_may_hold_a_slash(sdk, name):
    assert (await sdk.models.retrieve(name)).id == name


@pytest.mark.parametrize("path", ["/v1/models/org/tiny", "/v1/models/org%2Ftiny", "/v1/models/small"])
async def test_retrieve_takes_both_spellings_of_a_slash_and_aliases(http, path):
    assert (await http.get(path)).json()["id"] == "org/tiny"


async def test_retrieve_takes_no_part_of_the_name_from_the_query(http):
    assert (await http.get("/v1/models/tiny?owner=org")).json()["id"] == "tiny"


async def test_retrieve_of_an_unknown_model_is_a_not_found_error(sdk):
    with pytest.raises(openai.NotFoundError) as caught:
        await sdk.models.retrieve("org/tino")
    assert caught.value.code == "model_not_found"
    assert caught.value.param == "model"
    assert "Did you mean 'org/tiny'?" in caught.value.message
