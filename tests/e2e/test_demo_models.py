"""The further demo models through a real server: a picture named, a mistake found, a title given.

`media/chelsea.jpg` is the cat of scikit-image, by Stéfan van der Walt, who gave it to the public domain (CC0).
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import DEMO, Server

pytestmark = pytest.mark.real

MODELS = ("efficientnet-lite0", "quire-grammar-tagger", "traceforge-titler")
CAT = Path(__file__).parent / "media" / "chelsea.jpg"
STORIES = [
    "Read config.py, edited the database timeout, ran pytest and fixed two failing tests",
    "The user asked for a recipe of a lemon cake without eggs, and the assistant gave three and compared them.",
    "git bisect found the commit that broke the build on Windows",
]


@pytest.fixture(scope="module")
def demos(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server with the three models."""
    if any(not (DEMO / name / "config.json").exists() for name in MODELS):
        pytest.skip("the further demo models are not there; `modelport demo --all` fetches them")
    rows = "".join(f'[models.{name}]\nsource = "{DEMO / name}"\ndtype = "float32"\nbackend = "cpu"\n' for name in MODELS)
    server = Server(tmp_path_factory.mktemp("demos"), "[backends.cpu]\n" + rows)
    yield server
    server.stop()


def infer(server: Server, model: str, **request: object) -> dict:
    answer = server.client.post(f"/v1/infer/{model}", json=request)
    assert answer.status_code == 200, answer.text
    return answer.json()["result"]


def test_the_image_classifier_names_the_cat(demos: Server) -> None:
    picture = {"data": base64.b64encode(CAT.read_bytes()).decode()}

    best, *others = infer(demos, "efficientnet-lite0", inputs=picture, top_k=5)["results"]

    assert best["label"] == "Egyptian cat"
    assert best["score"] > 0.5
    assert len(others) == 4


def test_the_tagger_finds_then_for_than(demos: Server) -> None:
    text = "I think there dog are bigger then ours ."

    (found,) = infer(demos, "quire-grammar-tagger", inputs=[text], ignore_labels=["$KEEP"])["results"]

    edits = {text[entity["start"] : entity["end"]]: entity["entity"] for entity in found}
    assert edits["then"] == "$REPLACE_than"


def test_greedy_titles_equal_transformers(demos: Server) -> None:
    import torch
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(DEMO / "traceforge-titler")
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(DEMO / "traceforge-titler", dtype=torch.float32).eval()
    expected = []
    for story in STORIES:
        with torch.no_grad():
            ids = model.generate(**tokenizer(story, return_tensors="pt"), do_sample=False)
        expected.append(tokenizer.decode(ids[0], skip_special_tokens=True))

    answer = infer(demos, "traceforge-titler", inputs=STORIES)

    assert [result["generated_text"] for result in answer["results"]] == expected
    assert len(set(expected)) == 3
