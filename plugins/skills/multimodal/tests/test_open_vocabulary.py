"""Objects that the request names, as transformers' model and its rules for boxes find them in one image."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelport.contract import ConfigurationError, InputTooLong, InvalidRequest, Media, ModelCard
from modelport.tasks.multimodal import ZeroShotDetectionRequest
from modelport.testing.backend import card_of
from modelport.testing.skill import SkillSuite, assert_close
from modelport_backend_cpu.backend import CpuBackend
from modelport_skill_multimodal import Multimodal

Checkpoint = Callable[[str], Path]
Picture = Callable[..., Media]
Ask = Callable[..., list[Any]]

LABELS = [["a cat", "a dog that is good", "two"], ["the one", "a cat"], ["a day"], ["bad dog", "he", "it", "they"]]
SIZES = ((61, 47), (40, 70), (61, 47), (90, 30))


@pytest.mark.parametrize("kind", ["owlvit", "owlv2"])
def test_owl(kind: str, checkpoint: Checkpoint, picture: Picture, ask: Ask, reference: Any) -> None:
    images = [picture(n, *size) for n, size in enumerate(SIZES)]
    asked = [
        ZeroShotDetectionRequest(inputs=image, candidate_labels=labels, threshold=0.3)
        for image, labels in zip(images, LABELS, strict=True)
    ]

    answers = ask(checkpoint(kind), asked)

    model = reference(checkpoint(kind))
    for image, labels, answer in zip(images, LABELS, answers, strict=True):
        output = model(**model.texts(labels), **model.image(image))
        (expected,) = model.processor.post_process_object_detection(output, threshold=0.3, target_sizes=[model.size(image)])
        _same(answer, [labels[i] for i in expected["labels"]], expected["scores"].numpy(), expected["boxes"].numpy())


@pytest.mark.parametrize(("kind", "least"), [("grounding_dino", 0.3), ("mm_grounding_dino", 0.001)])
def test_grounding_dino(kind: str, least: float, checkpoint: Checkpoint, picture: Picture, ask: Ask, reference: Any) -> None:
    from transformers.models.grounding_dino.processing_grounding_dino import GroundingDinoProcessor

    images = [picture(n, *size) for n, size in enumerate(SIZES)]
    asked = [
        ZeroShotDetectionRequest(inputs=image, candidate_labels=labels, threshold=least)
        for image, labels in zip(images, LABELS, strict=True)
    ]

    answers = ask(checkpoint(kind), asked)

    model = reference(checkpoint(kind))
    for image, labels, answer in zip(images, LABELS, answers, strict=True):
        caption = ". ".join(labels) + "."
        texts = model.tokenizer([caption], return_tensors="pt", return_offsets_mapping=True)
        offsets = texts.pop("offset_mapping")[0].tolist()
        output = model(**texts, **model.image(image))
        rules = GroundingDinoProcessor.post_process_grounded_object_detection
        decoder = type("Decoder", (), {"batch_decode": lambda self, ids: ["" for _ in ids]})()
        (expected,) = rules(decoder, output, texts["input_ids"], threshold=least, target_sizes=[model.size(image)])
        likeness = output.logits[0].sigmoid().numpy()
        best = []
        for row in likeness[likeness.max(-1) > least]:
            starts = np.cumsum([0, *(len(label) + 2 for label in labels)])
            of_label = [
                max(row[i] for i, (a, b) in enumerate(offsets) if starts[n] <= a < b <= starts[n] + len(label))
                for n, label in enumerate(labels)
            ]
            best.append(labels[int(np.argmax(of_label))])
        _same(answer, best, expected["scores"].numpy(), expected["boxes"].numpy())


def _same(answer: Any, labels: list[str], scores: np.ndarray, boxes: np.ndarray) -> None:
    order = np.argsort(-scores, kind="stable")
    assert len(order) > 0
    assert [each.label for each in answer.results] == [labels[i] for i in order]
    np.testing.assert_allclose([each.score for each in answer.results], scores[order], atol=1e-4)
    found = [(each.box.xmin, each.box.ymin, each.box.xmax, each.box.ymax) for each in answer.results]
    np.testing.assert_allclose(found, np.trunc(boxes[order]), atol=1)  # whole pixels: a side may fall on either side of one


@pytest.mark.parametrize("kind", ["owlvit", "grounding_dino"])
@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sizes=st.lists(st.tuples(st.integers(16, 90), st.integers(16, 90)), max_size=3).map(lambda more: [(61, 47), (40, 70), *more]),
    labels=st.lists(st.sampled_from(["a cat", "dog", "the two of them", "2"]), min_size=1, max_size=4),
)
def test_an_answer_does_not_depend_on_company(
    kind: str, sizes: list[tuple[int, int]], labels: list[str], checkpoint: Checkpoint, picture: Picture, ask_twice: Any
) -> None:
    asked = [
        ZeroShotDetectionRequest(inputs=picture(n, *size), candidate_labels=labels[: n % len(labels) + 1], threshold=0.2)
        for n, size in enumerate(sizes * 2)
    ]

    together, alone = ask_twice(checkpoint(kind), asked)

    assert not any(isinstance(answer, Exception) for answer in alone)
    assert any(answer.results for answer in alone)
    assert_close(_loose(together), _loose(alone), 1.0)
    assert_close(_scores(together), _scores(alone), 1e-4)


def _loose(answers: list[Any]) -> Any:
    """Boxes to the pixel."""
    return [[vars_of(each.box) for each in answer.results] for answer in answers]


def _scores(answers: list[Any]) -> Any:
    return [[(each.label, each.score) for each in answer.results] for answer in answers]


def vars_of(box: Any) -> list[float]:
    return [float(side) for side in (box.xmin, box.ymin, box.xmax, box.ymax)]


def test_what_is_refused(checkpoint: Checkpoint, picture: Picture, ask: Ask) -> None:
    image, strip = picture(1), picture(1, 1, 8000)
    bad: list[tuple[str, Any, str, str]] = [
        ("owlvit", {"inputs": Media(data=b"no image"), "candidate_labels": ["a"]}, "inputs", "not an image"),
        ("owlvit", {"inputs": image, "candidate_labels": ["a", "b" * 40]}, "candidate_labels.1", "at most 32"),
        ("owlv2", {"inputs": strip, "candidate_labels": ["a"]}, "inputs", "pads images to squares"),
        ("grounding_dino", {"inputs": image, "candidate_labels": ["a", "b."]}, "candidate_labels.1", "full stop"),
        ("grounding_dino", {"inputs": image, "candidate_labels": ["a", "\u200b"]}, "candidate_labels.1", "no character"),
        ("grounding_dino", {"inputs": image, "candidate_labels": ["cat"] * 40}, "candidate_labels", "at most 32"),
        ("grounding_dino", {"inputs": Media(data=image.data[:99]), "candidate_labels": ["a"]}, "inputs", "cannot be decoded"),
    ]
    for kind in ("owlvit", "owlv2", "grounding_dino"):
        mine = [entry for entry in bad if entry[0] == kind]
        good = {"inputs": image, "candidate_labels": ["a"]}
        *errors, fine = ask(
            checkpoint(kind), [ZeroShotDetectionRequest(**fields) for _, fields, _, _ in [*mine, ("", good, "", "")]]
        )
        for (_, _, field, words), error in zip(mine, errors, strict=True):
            assert isinstance(error, InvalidRequest | InputTooLong), error
            assert (error.param, words in error.message) == (field, True), error
        assert fine.results is not None

    for fields, param in (
        ({"candidate_labels": []}, "candidate_labels"),
        ({"candidate_labels": ["a"], "threshold": 2}, "threshold"),
    ):
        with pytest.raises(InvalidRequest) as caught:
            ZeroShotDetectionRequest(inputs=image, **fields)
        assert caught.value.param == param


def test_a_detector_that_needs_torchvision_is_refused_in_words(checkpoint: Checkpoint, tmp_path: Path) -> None:
    folder = shutil.copytree(checkpoint("owlvit"), tmp_path / "omdet")
    config = folder / "config.json"
    told = {"model_type": "omdet-turbo", "architectures": ["OmDetTurboForObjectDetection"]}
    config.write_text(json.dumps(json.loads(config.read_text()) | told))

    with pytest.raises(ConfigurationError, match="torchvision"):
        Multimodal().programs(card_of(folder))


class TestSuite(SkillSuite):
    """What the core relies on."""

    skill = Multimodal()
    backend = CpuBackend()

    @pytest.fixture(autouse=True)
    def _given(self, checkpoint: Checkpoint, picture: Picture) -> None:
        self.folder, self.picture = checkpoint("owlvit"), picture

    def card(self, folder: Path) -> ModelCard:
        return card_of(self.folder)

    def requests(self) -> dict[str, list[Any]]:
        given = zip(SIZES, LABELS, strict=True)
        return {
            "zero-shot-object-detection": [
                ZeroShotDetectionRequest(inputs=self.picture(n, *size), candidate_labels=labels)
                for n, (size, labels) in enumerate(given)
            ]
        }

    def bad_requests(self) -> list[tuple[str, Any, str]]:
        request = ZeroShotDetectionRequest(inputs=Media(data=b"x"), candidate_labels=["a"])
        return [("zero-shot-object-detection", request, "inputs")]
