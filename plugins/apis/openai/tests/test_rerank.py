from __future__ import annotations

import pytest

from modelport.tasks.text import RankedDocument, RankingResult

BODY = {"model": "tiny", "query": "q", "documents": ["first", {"text": "second", "page": 4}]}


@pytest.fixture(autouse=True)
def ranking(host):
    host.answers["text-ranking"] = RankingResult(results=[RankedDocument(1, 0.9), RankedDocument(0, 0.1)])


async def test_v1_answers_what_both_services_answer(http):
    answer = (await http.post("/v1/rerank", json=BODY)).json()
    assert answer.pop("id")
    assert answer == {
        "object": "list",
        "model": "tiny",
        "results": [
            {"index": 1, "relevance_score": 0.9, "document": {"text": "second", "page": 4}},
            {"index": 0, "relevance_score": 0.1, "document": {"text": "first"}},
        ],
        "usage": {"prompt_tokens": 5, "total_tokens": 5},
        "meta": {"api_version": {"version": "1"}, "tokens": {"input_tokens": 5}},
    }


@pytest.mark.parametrize(
    ("path", "asked", "there"), [("/v1/rerank", False, False), ("/v2/rerank", None, False), ("/v2/rerank", True, True)]
)
async def test_documents_come_back_as_asked_or_as_the_version_has_it(http, path, asked, there):
    response = await http.post(path, json=BODY | {"return_documents": asked})
    assert response.status_code == 200
    assert all(("document" in result) is there for result in response.json()["results"])


async def test_request_reaches_the_task_and_cuts_what_is_too_long(http, host):
    await http.post("/v2/rerank", json=BODY | {"top_n": 1, "max_tokens_per_doc": 64})
    request = host.request
    assert (request.query, request.documents) == ("q", ["first", "second"])
    assert (request.top_n, request.max_tokens_per_document, request.truncate) == (1, 64, True)


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"documents": []}, "documents"),
        ({"documents": ["a"] * 1001}, "documents"),
        ({"documents": ["a", {"title": "b"}]}, "documents.1.text"),
        ({"query": ""}, "query"),
        ({"top_n": 0}, "top_n"),
        ({"rank_fields": ["a"]}, "rank_fields"),
    ],
)
async def test_a_field_that_cannot_work_is_refused_by_name(refused, change, param):
    assert (await refused("/v1/rerank", BODY | change))["param"] == param
