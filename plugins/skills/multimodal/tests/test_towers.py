"""Labels that the request brings, and embeddings, as transformers' model computes them from one image and the same texts."""

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

from modelport.contract import ConfigurationError, InputTooLong, InvalidRequest, Media, ModelCard, SessionContext
from modelport.tasks.multimodal import ZeroShotImageRequest
from modelport.tasks.text import EmbeddingRequest
from modelport.tasks.vision import ImageFeaturesRequest
from modelport.testing.backend import card_of
from modelport.testing.skill import SkillSuite, assert_close
from modelport_backend_cpu.backend import CpuBackend
from modelport_skill_multimodal import Multimodal

Checkpoint = Callable[[str], Path]
Picture = Callable[..., Media]
Ask = Callable[..., list[Any]]

KINDS = ("clip", "metaclip_2", "clipseg", "blip", "altclip", "chinese_clip", "align", "siglip", "siglip2", "blip_2")
LABELS = ["a cat", "a dog that is not good", "2", "the one"]
SIZES = ((61, 47), (40, 70), (61, 47), (90, 30))


@pytest.mark.parametrize("kind", KINDS)
def test_labels_and_scores(kind: str, checkpoint: Checkpoint, picture: Picture, ask: Ask, reference: Any) -> None:
    images = [picture(n, *size) for n, size in enumerate(SIZES)]
    template = "It is {}!"
    asked = [ZeroShotImageRequest(inputs=image, candidate_labels=LABELS, hypothesis_template=template) for image in images]

    answers = ask(checkpoint(kind), asked)

    model = reference(checkpoint(kind))
    found = []
    for image, answer in zip(images, answers, strict=True):
        texts = model.texts([template.format(label) for label in LABELS])
        logits = model(**texts, **model.image(image)).logits_per_image[0]
        expected = (logits.sigmoid() if "siglip" in kind else logits.softmax(-1)).numpy()
        order = np.argsort(-logits.numpy(), kind="stable")
        assert [each.label for each in answer.results] == [LABELS[i] for i in order]
        np.testing.assert_allclose([each.score for each in answer.results], expected[order], atol=1e-4)
        found.append(expected)
    assert max(np.abs(found[0] - other).max() for other in found[1:]) > 1e-4, "a constant model proves nothing"
    assert np.ptp(found[0]) > 1e-4


@pytest.mark.parametrize("kind", KINDS)
def test_embeddings(kind: str, checkpoint: Checkpoint, picture: Picture, ask: Ask, reference: Any) -> None:
    images = [picture(n, *size) for n, size in enumerate(SIZES[:2])]
    asked = [EmbeddingRequest(inputs=LABELS), EmbeddingRequest(inputs=LABELS[0], normalize=False)]

    of_texts, raw, *of_images = ask(checkpoint(kind), [*asked, *(ImageFeaturesRequest(inputs=image) for image in images)])

    model = reference(checkpoint(kind))
    for image, answer in zip(images, of_images, strict=True):
        expected = model(**model.texts(LABELS), **model.image(image))
        np.testing.assert_allclose(of_texts.embeddings, expected.text_embeds.numpy(), atol=1e-5)
        np.testing.assert_allclose(answer.features, expected.image_embeds[0].numpy(), atol=1e-5)
    if kind != "blip_2":
        plain = model.model.get_text_features(**model.texts(LABELS[:1])).pooler_output.detach().numpy()
        np.testing.assert_allclose(raw.embeddings, plain, atol=1e-5)
    assert np.abs(of_images[0].features - of_images[1].features).max() > 1e-4


@pytest.mark.parametrize("kind", ["clip", "siglip2", "align"])
@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sizes=st.lists(st.tuples(st.integers(8, 90), st.integers(8, 90)), max_size=3).map(lambda more: [(61, 47), (40, 70), *more]),
    labels=st.lists(st.text("ab cd", min_size=1).filter(str.strip), min_size=1, max_size=5),
)
def test_an_answer_does_not_depend_on_company(
    kind: str, sizes: list[tuple[int, int]], labels: list[str], checkpoint: Checkpoint, picture: Picture, ask_twice: Any
) -> None:
    labels = [label[:12] for label in labels if label[:12].strip()] or ["a"]
    asked: list[Any] = [ZeroShotImageRequest(inputs=picture(n, *size), candidate_labels=labels) for n, size in enumerate(sizes)]
    asked += [ImageFeaturesRequest(inputs=picture(1)), EmbeddingRequest(inputs=labels)]

    together, alone = ask_twice(checkpoint(kind), asked)

    assert not any(isinstance(answer, Exception) for answer in alone)
    assert_close([_by_label(answer) for answer in together], [_by_label(answer) for answer in alone], 1e-4)


def _by_label(answer: Any) -> Any:
    """Labels of one score may change places."""
    return sorted((each.label, each.score) for each in answer.results) if hasattr(answer, "results") else answer


def test_a_label_is_read_once(checkpoint: Checkpoint, picture: Picture) -> None:
    class Counting(SkillSuite):
        __test__ = False
        skill, backend = Multimodal(), CpuBackend()

        def card(self, folder: Path) -> ModelCard:
            return card_of(checkpoint("clip"))

    used = []

    async def scenario(served: Any) -> None:
        for seed in range(2):
            request = ZeroShotImageRequest(inputs=picture(seed), candidate_labels=["a cat", "a dog"])
            await served.ask("zero-shot-image-classification", request)
            used.append(served.usage.prompt_tokens)

    Counting()._serve(checkpoint("clip").parent, scenario)

    assert used[0] > used[1] > 0


def test_what_is_refused(checkpoint: Checkpoint, picture: Picture, ask: Ask) -> None:
    image = picture(1)
    bad: list[tuple[Any, str, str]] = [
        (ZeroShotImageRequest(inputs=Media(data=b"no image"), candidate_labels=["a"]), "inputs", "not an image"),
        (ZeroShotImageRequest(inputs=Media(data=image.data[:99]), candidate_labels=["a"]), "inputs", "cannot be decoded"),
        (ZeroShotImageRequest(inputs=Media(), candidate_labels=["a"]), "inputs", "is empty"),
        (ZeroShotImageRequest(inputs=picture(1, 1, 200_000), candidate_labels=["a"]), "inputs", "Cut out the part"),
        (ZeroShotImageRequest(inputs=image, candidate_labels=["a", "b" * 40]), "candidate_labels.1", "at most 32"),
        (EmbeddingRequest(inputs=[]), "inputs", "is empty"),
        (EmbeddingRequest(inputs=["a", " "]), "inputs.1", "is empty"),
        (EmbeddingRequest(inputs="b" * 40), "inputs", "at most 32"),
        (EmbeddingRequest(inputs=["a", 3]), "inputs.1", "mixes"),
        (EmbeddingRequest(inputs=[3, 10_000]), "inputs.1", "vocabulary"),
        (EmbeddingRequest(inputs="a", dimensions=17), "dimensions", "have 16"),
        (EmbeddingRequest(inputs="a", dimensions=0), "dimensions", "at least 1"),
        (EmbeddingRequest(inputs="a", prompt_name="query"), "prompt_name", "no prompts"),
        (ImageFeaturesRequest(inputs=Media(url="http://example.com/a.png")), "inputs.url", "fetches none"),
    ]

    answers = ask(checkpoint("clip"), [*(request for request, _, _ in bad), EmbeddingRequest(inputs="a")])

    for (_, field, words), error in zip(bad, answers, strict=False):
        assert isinstance(error, InvalidRequest | InputTooLong), error
        assert (error.param, words in error.message) == (field, True), error
    assert answers[-1].embeddings.shape == (1, 16)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"candidate_labels": []}, "candidate_labels"),
        ({"candidate_labels": ["a", " "]}, "candidate_labels.1"),
        ({"candidate_labels": ["a"] * 1001}, "candidate_labels"),
        ({"candidate_labels": ["a"], "hypothesis_template": "a photo"}, "hypothesis_template"),
    ],
)
def test_labels_that_cannot_be(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        ZeroShotImageRequest(inputs=Media(data=b"x"), **fields)
    assert caught.value.param == param


def test_long_texts_are_cut_where_that_is_asked(checkpoint: Checkpoint, ask: Ask) -> None:
    text = " ".join(f"{n}" for n in range(60))
    cut = {"truncate": True, "dimensions": 8}
    asked = [EmbeddingRequest(inputs=text, **cut), EmbeddingRequest(inputs=text, truncation_direction="left", **cut)]

    for kind in ("clip", "siglip"):
        right, left = ask(checkpoint(kind), asked)
        assert right.embeddings.shape == (1, 8)
        assert np.linalg.norm(right.embeddings) == pytest.approx(1, abs=1e-5)
        assert np.abs(right.embeddings - left.embeddings).max() > 1e-4


def test_a_checkpoint_that_lacks_a_part_is_refused_when_it_is_loaded(checkpoint: Checkpoint, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    lame = shutil.copytree(checkpoint("clip"), tmp_path / "lame")
    tensors = load_file(lame / "model.safetensors")
    save_file({name: tensor for name, tensor in tensors.items() if name != "logit_scale"}, lame / "model.safetensors")
    foreign = shutil.copytree(checkpoint("siglip2"), tmp_path / "foreign")
    shutil.copy(checkpoint("clip") / "preprocessor_config.json", foreign)

    mute = shutil.copytree(checkpoint("siglip"), tmp_path / "mute")
    (mute / "spiece.model").unlink()

    for folder, words in (
        (lame, "no tensor 'logit_scale'"),
        (foreign, "no pixel_attention_mask and no spatial_shapes"),
        (mute, "tokenizer of the model .* cannot be loaded"),
    ):
        with pytest.raises(ConfigurationError, match=words):
            Multimodal().session(_context(folder))


def test_what_it_does_not_claim(checkpoint: Checkpoint, tmp_path: Path) -> None:
    whole = card_of(checkpoint("clip"))
    assert Multimodal().claim(whole) is not None
    for name, lost in (("no_tokenizer", "tokenizer"), ("no_towers", "config")):
        folder = shutil.copytree(checkpoint("clip"), tmp_path / name)
        if lost == "tokenizer":
            for file in folder.glob("tokenizer*"):
                file.unlink()
        else:
            config = json.loads((folder / "config.json").read_text())
            (folder / "config.json").write_text(json.dumps(config["vision_config"] | {"architectures": ["CLIPVisionModel"]}))
        assert Multimodal().claim(card_of(folder)) is None, name


def _context(folder: Path) -> SessionContext:
    card = card_of(folder)
    (task, program), *_ = Multimodal().programs(card).items()
    return SessionContext(card=card, task=task, tasks=(task,), program=program, checkpoints={"main": folder})


class TestSuite(SkillSuite):
    """What the core relies on."""

    skill = Multimodal()
    backend = CpuBackend()

    @pytest.fixture(autouse=True)
    def _given(self, checkpoint: Checkpoint, picture: Picture) -> None:
        self.folder, self.picture = checkpoint("clip"), picture

    def card(self, folder: Path) -> ModelCard:
        return card_of(self.folder)

    def requests(self) -> dict[str, list[Any]]:
        pictures = [self.picture(n, *size) for n, size in enumerate(SIZES)]
        return {
            "zero-shot-image-classification": [ZeroShotImageRequest(inputs=each, candidate_labels=LABELS) for each in pictures],
            "image-feature-extraction": [ImageFeaturesRequest(inputs=each) for each in pictures],
            "feature-extraction": [EmbeddingRequest(inputs="a cat"), EmbeddingRequest(inputs=LABELS, dimensions=4)],
        }

    def bad_requests(self) -> list[tuple[str, Any, str]]:
        return [("feature-extraction", EmbeddingRequest(inputs=[]), "inputs")]
