"""Every task beside generation and embeddings, through a real server, compared with transformers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from modelport.testing.checkpoints import tiny_reader

from .conftest import Server

READERS = {"tagger": "token-classification", "filler": "masked-lm", "reader": "question-answering"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("tasks")
    models = "".join(
        f'[models.{name}]\nsource = "{tiny_reader(folder / name, head)}"\nbackend = "cpu"\n' for name, head in READERS.items()
    )
    running = Server(folder, f'skills = ["token_classification"]\n{models}')
    running.folder = folder
    yield running
    running.stop()


def infer(server: Server, model: str, **request: object) -> list:
    answer = server.client.post(f"/v1/infer/{model}", json=request)
    assert answer.status_code == 200, answer.text
    return answer.json()["result"]["results"]


def test_entities(server):
    from transformers import pipeline

    text = "he and his dog for a day"
    expected = pipeline("token-classification", str(server.folder / "tagger"))(text, aggregation_strategy="average")
    (found,) = infer(server, "tagger", inputs=text, aggregation_strategy="average")
    assert [(e["entity_group"], e["word"], e["start"], e["end"]) for e in found] == [
        (e["entity_group"], e["word"], e["start"], e["end"]) for e in expected
    ]
    assert [e["score"] for e in found] == pytest.approx([e["score"] for e in expected], abs=1e-4)


def test_fillings(server):
    from transformers import pipeline

    expected = pipeline("fill-mask", str(server.folder / "filler"))("the [MASK] was good", top_k=3)
    ((found,),) = infer(server, "filler", inputs="the [MASK] was good", top_k=3)
    assert [(f["token"], f["sequence"]) for f in found] == [(f["token"], f["sequence"]) for f in expected]
    assert [f["score"] for f in found] == pytest.approx([f["score"] for f in expected], abs=1e-4)


def test_answers(server):
    question = {"question": "is it good", "context": "the dog was at the day and he was bad"}
    (one,), (other,) = infer(server, "reader", inputs=[question, {**question, "context": "a cat"}])
    assert question["context"][one["start"] : one["end"]] == one["answer"]
    assert other["answer"] in ("a", "cat", "a cat")
