"""Questions about pages, answered as transformers' model does for one page: windows and marks as its own pipeline makes them."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelport.contract import ConfigurationError, InputTooLong, InvalidRequest, Media, ModelCard
from modelport.tasks.multimodal import DocumentQuestionRequest
from modelport.testing.backend import card_of
from modelport.testing.skill import SkillSuite, assert_close
from modelport_backend_cpu.backend import CpuBackend
from modelport_skill_multimodal import Multimodal

Checkpoint = Callable[[str], Path]
Picture = Callable[..., Media]
Page = tuple[list[str], list[tuple[int, int, int, int]]]

KINDS = ("layoutlm", "layoutlmv3")
SIZES = ((120, 80), (40, 70), (200, 300))


def page(words: int, size: tuple[int, int], seed: int = 0) -> Page:
    """So many words at random places of a page."""
    chance = np.random.default_rng(seed)
    known = "the cat dog 12 on bad day 3,50 good one it".split()
    boxes = []
    for _ in range(words):
        left, right = sorted(int(x) for x in chance.integers(0, size[0] + 1, 2))
        top, bottom = sorted(int(y) for y in chance.integers(0, size[1] + 1, 2))
        boxes.append((left, top, right, bottom))
    return [str(chance.choice(known)) for _ in range(words)], boxes


def request(picture: Picture, words: int, size: tuple[int, int], seed: int = 0, **options: Any) -> DocumentQuestionRequest:
    texts, boxes = page(words, size, seed)
    return DocumentQuestionRequest(image=picture(seed, *size), question="how much is it", words=texts, boxes=boxes, **options)


def expected_answers(model: Any, asked: DocumentQuestionRequest) -> list[tuple[float, str, int, int]]:
    """(score, answer, first word, last word), best first: transformers' tokenizer, model and rules, window by window."""
    import torch
    from transformers.pipelines.document_question_answering import normalize_box, select_starts_ends

    height, width = model.size(asked.image)
    assert asked.words is not None
    assert asked.boxes is not None
    boxes = [normalize_box(box, width, height) for box in asked.boxes]
    made = model.tokenizer(
        text=asked.question.split(), text_pair=asked.words, is_split_into_words=True, max_length=32, stride=16,
        return_token_type_ids=True, truncation="only_second", return_overflowing_tokens=True,
    )  # fmt: skip
    sees = model.kind == "layoutlmv3"
    rules = {"top_k": asked.top_k, "max_answer_len": asked.max_answer_len}
    end = 0 if sees else 1000
    found: dict[tuple[int, int], float] = {}
    null = 1e6
    for index, ids in enumerate(made["input_ids"]):
        sequences, words = made.sequence_ids(index), made.word_ids(index)
        bbox = [
            boxes[word] if sequence == 1 else [end if token == model.tokenizer.sep_token_id else 0] * 4
            for token, sequence, word in zip(ids, sequences, words, strict=True)
        ]
        inputs = {"input_ids": torch.tensor([ids]), "bbox": torch.tensor([bbox])}
        if sees:
            inputs |= model.image(asked.image, apply_ocr=False)
        else:
            inputs["token_type_ids"] = torch.tensor([made["token_type_ids"][index]])
        output = model(**inputs)
        mask = np.array([sequence != 1 for sequence in sequences])
        mask[0] = False
        first, last = (logits.numpy()[:, : len(ids)] for logits in (output.start_logits, output.end_logits))
        starts, ends, scores, null = select_starts_ends(
            first, last, mask, np.ones((1, len(ids)), int), null, handle_impossible_answer=asked.handle_impossible_answer, **rules
        )
        for start, stop, score in zip(starts, ends, scores, strict=True):
            span = (words[start], words[stop])
            found[span] = max(found.get(span, 0.0), float(score))
    answers = [(score, " ".join(asked.words[a : b + 1]), a, b) for (a, b), score in found.items()]
    if asked.handle_impossible_answer:
        answers.append((null, "", 0, 0))
    return sorted(answers, key=lambda answer: -answer[0])[: asked.top_k]


@pytest.mark.parametrize("kind", KINDS)
def test_answers(kind: str, checkpoint: Checkpoint, picture: Picture, ask: Any, reference: Any) -> None:
    asked = [
        request(picture, 9, SIZES[0], 0),
        request(picture, 60, SIZES[1], 1, top_k=3),
        request(picture, 25, SIZES[2], 2, top_k=2, max_answer_len=2, handle_impossible_answer=True),
        request(picture, 1, SIZES[0], 3),
    ]

    answers = ask(checkpoint(kind), asked)

    model = reference(checkpoint(kind))
    for each, answer in zip(asked, answers, strict=True):
        expected = expected_answers(model, each)
        assert [(a.answer, a.start, a.end) for a in answer.results] == [(text, start, end) for _, text, start, end in expected]
        np.testing.assert_allclose([a.score for a in answer.results], [score for score, *_ in expected], atol=1e-4)
    assert answers[1].results[0].score != pytest.approx(answers[2].results[0].score, abs=1e-6)


def test_places_and_pixels_matter(checkpoint: Checkpoint, picture: Picture, ask: Any) -> None:
    first = request(picture, 12, SIZES[0])
    moved = DocumentQuestionRequest(image=first.image, question=first.question, words=first.words, boxes=page(12, SIZES[0], 5)[1])
    painted = DocumentQuestionRequest(image=picture(9, *SIZES[0]), question=first.question, words=first.words, boxes=first.boxes)

    for kind, other in (("layoutlm", moved), ("layoutlmv3", moved), ("layoutlmv3", painted)):
        one, two = ask(checkpoint(kind), [first, other])
        assert abs(one.results[0].score - two.results[0].score) > 1e-6, (kind, other)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(words=st.lists(st.integers(1, 60), min_size=2, max_size=5))
def test_an_answer_does_not_depend_on_company(
    kind: str, words: list[int], checkpoint: Checkpoint, picture: Picture, ask_twice: Any
) -> None:
    asked = [request(picture, count, SIZES[seed % 3], seed) for seed, count in enumerate(words)]

    together, alone = ask_twice(checkpoint(kind), asked)

    assert not any(isinstance(answer, Exception) for answer in alone)
    assert_close(together, alone, 1e-4)


# --------------------------------------------------------------------------------------------------------- words by OCR


def test_without_ocr_a_request_needs_words(
    checkpoint: Checkpoint, picture: Picture, ask: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pytesseract", None)

    (error,) = ask(checkpoint("layoutlm"), [DocumentQuestionRequest(image=picture(1), question="how much")])

    assert isinstance(error, InvalidRequest)
    assert error.param == "words"
    assert "Send words and boxes, or install" in error.message


def test_words_that_ocr_reads(checkpoint: Checkpoint, picture: Picture, ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    words, boxes = page(9, SIZES[0])
    columns = {
        "text": [*words, " "],
        "left": [box[0] for box in boxes] + [0],
        "top": [box[1] for box in boxes] + [0],
        "width": [box[2] - box[0] for box in boxes] + [0],
        "height": [box[3] - box[1] for box in boxes] + [0],
    }
    read = SimpleNamespace(image_to_data=lambda image, output_type: columns, TesseractNotFoundError=OSError)
    monkeypatch.setitem(sys.modules, "pytesseract", read)
    sent = request(picture, 9, SIZES[0])

    found, expected = ask(checkpoint("layoutlm"), [DocumentQuestionRequest(image=sent.image, question=sent.question), sent])

    assert_close(found, expected, 1e-5)


# ------------------------------------------------------------------------------------------------------- what is refused


def test_what_is_refused(checkpoint: Checkpoint, picture: Picture, ask: Any) -> None:
    image = picture(1)
    given = {"image": image, "question": "how much"}
    bad: list[tuple[dict[str, Any], str]] = [
        ({"words": [], "boxes": []}, "words"),
        ({"words": [" "], "boxes": [(0, 0, 1, 1)]}, "words"),
        ({"words": ["a", "b"], "boxes": [(0, 0, 1, 1), (0, 0, 62, 1)]}, "boxes.1"),
        ({"words": ["a"], "boxes": [(5, 0, 4, 1)]}, "boxes.0"),
        ({"words": ["a"], "boxes": [(0, 0, 1, 1)], "image": Media(data=b"no image")}, "image"),
        ({"words": ["a"], "boxes": [(0, 0, 1, 1)], "question": "b" * 40}, "question"),
        ({"words": ["a"], "boxes": [(0, 0, 1, 1)], "top_k": 1001}, "top_k"),
    ]

    answers = ask(checkpoint("layoutlmv3"), [DocumentQuestionRequest(**(given | fields)) for fields, _ in bad])

    for (_, param), error in zip(bad, answers, strict=True):
        assert isinstance(error, InvalidRequest | InputTooLong), error
        assert error.param == param


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"question": ""}, "question"),
        ({"top_k": 0}, "top_k"),
        ({"max_answer_len": 0}, "max_answer_len"),
        ({"words": ["a"]}, "boxes"),
        ({"boxes": [(0, 0, 1, 1)]}, "words"),
        ({"words": ["a"], "boxes": []}, "boxes"),
        ({"words": ["a"] * 20_001, "boxes": [(0, 0, 1, 1)] * 20_001}, "words"),
    ],
)
def test_requests_that_cannot_be(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        DocumentQuestionRequest(**({"image": Media(data=b"x"), "question": "how much"} | fields))
    assert caught.value.param == param


def test_a_model_that_needs_detectron2_is_refused_in_words(checkpoint: Checkpoint, tmp_path: Path) -> None:
    folder = shutil.copytree(checkpoint("layoutlmv3"), tmp_path / "layoutlmv2")
    config = folder / "config.json"
    told = {"model_type": "layoutlmv2", "architectures": ["LayoutLMv2ForQuestionAnswering"]}
    config.write_text(json.dumps(json.loads(config.read_text()) | told))

    with pytest.raises(ConfigurationError, match="detectron2"):
        Multimodal().programs(card_of(folder))


class TestSuite(SkillSuite):
    """What the core relies on."""

    skill = Multimodal()
    backend = CpuBackend()

    @pytest.fixture(autouse=True)
    def _given(self, checkpoint: Checkpoint, picture: Picture) -> None:
        self.folder, self.picture = checkpoint("layoutlmv3"), picture

    def card(self, folder: Path) -> ModelCard:
        return card_of(self.folder)

    def requests(self) -> dict[str, list[Any]]:
        asked = [request(self.picture, 20 * seed + 3, size, seed, top_k=2) for seed, size in enumerate(SIZES)]
        return {"document-question-answering": asked}

    def bad_requests(self) -> list[tuple[str, Any, str]]:
        blank = DocumentQuestionRequest(image=self.picture(1), question="how much", words=[], boxes=[])
        return [("document-question-answering", blank, "words")]
