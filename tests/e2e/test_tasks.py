"""Every task beside generation and embeddings, through a real server, compared with transformers."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image

from modelport.testing.checkpoints import tiny_clip, tiny_owlvit, tiny_reader

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


# ---------------------------------------------------------------------------------------------------- images and texts


@pytest.fixture(scope="module")
def seeing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("seeing")
    models = "".join(
        f'[models.{name}]\nsource = "{make(folder / name)}"\nbackend = "cpu"\n'
        for name, make in (("clip", tiny_clip), ("owlvit", tiny_owlvit))
    )
    running = Server(folder, models)
    running.folder = folder
    yield running
    running.stop()


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    coarse = np.random.default_rng(0).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((61, 47), Image.Resampling.BICUBIC)


def sent(photo: Image.Image) -> dict[str, str]:
    file = io.BytesIO()
    photo.save(file, "PNG")
    return {"url": "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()}


def test_labels_of_the_request_and_embeddings(seeing, photo):
    import torch
    from transformers import AutoTokenizer, CLIPModel
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    folder, labels = seeing.folder / "clip", ["a cat", "a dog that is bad", "two"]
    processor, tokenizer = CLIPImageProcessorPil.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    texts = tokenizer([f"This is a photo of {label}." for label in labels], padding=True, return_tensors="pt")
    inputs = {name: texts[name] for name in ("input_ids", "attention_mask")} | processor([photo], return_tensors="pt")
    with torch.inference_mode():
        expected = CLIPModel.from_pretrained(folder).eval()(**inputs)

    found = infer(seeing, "clip", inputs=sent(photo), candidate_labels=labels)

    scores = dict(zip(labels, expected.logits_per_image[0].softmax(-1).tolist(), strict=True))
    assert [each["label"] for each in found] == sorted(labels, key=lambda label: -scores[label])
    assert {each["label"]: each["score"] for each in found} == pytest.approx(scores, abs=1e-4)
    asked = {"model": "clip", "input": [f"This is a photo of {label}." for label in labels]}
    answer = seeing.client.post("/v1/embeddings", json=asked).json()
    embedded = [each["embedding"] for each in answer["data"]]
    np.testing.assert_allclose(embedded, expected.text_embeds.numpy(), atol=1e-5)
    refused = seeing.client.post("/v1/infer/clip", json={"inputs": sent(photo), "candidate_labels": []})
    assert refused.status_code == 400
    assert "candidate_labels" in refused.text


def test_boxes_of_what_the_request_names(seeing, photo):
    import torch
    from transformers import AutoTokenizer, OwlViTForObjectDetection
    from transformers.models.owlvit.image_processing_pil_owlvit import OwlViTImageProcessorPil

    folder, labels = seeing.folder / "owlvit", ["a cat", "a dog that is bad"]
    processor, tokenizer = OwlViTImageProcessorPil.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    texts = tokenizer(labels, padding=True, return_tensors="pt")
    inputs = {name: texts[name] for name in ("input_ids", "attention_mask")} | processor([photo], return_tensors="pt")
    with torch.inference_mode():
        output = OwlViTForObjectDetection.from_pretrained(folder).eval()(**inputs)
    (expected,) = processor.post_process_object_detection(output, threshold=0.2, target_sizes=[photo.size[::-1]])

    found = infer(seeing, "owlvit", inputs=sent(photo), candidate_labels=labels, threshold=0.2)

    order = expected["scores"].argsort(descending=True, stable=True)
    assert len(order) > 0
    assert [each["label"] for each in found] == [labels[expected["labels"][i]] for i in order]
    assert [each["score"] for each in found] == pytest.approx(expected["scores"][order].tolist(), abs=1e-4)
    sides = [[each["box"][side] for side in ("xmin", "ymin", "xmax", "ymax")] for each in found]
    np.testing.assert_allclose(sides, np.trunc(expected["boxes"][order].numpy()), atol=1)
