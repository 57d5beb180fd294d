"""Masks of what points and boxes show, and of all there is, are those that transformers' models and rules give."""

from __future__ import annotations

import asyncio
import functools
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from torch.nn.functional import interpolate

from modelport.contract import Media, ModelCard
from modelport.tasks.vision import MaskGenerationRequest
from modelport.testing.skill import SkillSuite
from modelport_backend_cpu import CpuBackend
from modelport_skill_vision import Vision, prompts
from modelport_skill_vision.masks import Candidate, without_doubles
from modelport_skill_vision.pixels import PixelRecipe

PROMPT = {"hidden_size": 16, "image_size": 64, "patch_size": 8, "mask_input_channels": 4}
DECODER = {"hidden_size": 16, "mlp_dim": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "iou_head_hidden_dim": 16}
VIT = {
    "hidden_size": 32, "output_channels": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 64, "patch_size": 8,
    "window_size": 4, "global_attn_indexes": [1], "mlp_dim": 32, "num_pos_feats": 8,
}  # fmt: skip
PADDED = {
    "image_processor_type": "SamImageProcessor", "size": {"longest_edge": 64}, "pad_size": {"height": 64, "width": 64},
    "mask_size": {"longest_edge": 16}, "mask_pad_size": {"height": 16, "width": 16},
}  # fmt: skip
STRETCHED = {"image_processor_type": "Sam2ImageProcessor", "size": {"height": 64, "width": 64}}


def sam() -> tuple[Any, Any, dict[str, Any]]:
    config = transformers.SamConfig(vision_config=VIT, prompt_encoder_config=PROMPT, mask_decoder_config=DECODER)
    return transformers.SamModel, config, PADDED


def sam_hq() -> tuple[Any, Any, dict[str, Any]]:
    config = transformers.SamHQConfig(
        vision_config=VIT, prompt_encoder_config=PROMPT, mask_decoder_config=DECODER | {"vit_dim": 32}
    )
    return transformers.SamHQModel, config, PADDED


def sam2() -> tuple[Any, Any, dict[str, Any]]:
    hiera = {
        "hidden_size": 8, "num_attention_heads": 1, "image_size": [64, 64], "blocks_per_stage": [1, 1, 2, 1],
        "embed_dim_per_stage": [8, 16, 32, 64], "num_attention_heads_per_stage": [1, 1, 2, 2],
        "window_size_per_stage": [4, 2, 4, 2],
        "window_positional_embedding_background_size": [4, 4], "global_attention_blocks": [3],
    }  # fmt: skip
    vision = {
        "backbone_config": {"model_type": "sam2_hiera_det_model", **hiera}, "backbone_channel_list": [64, 32, 16, 8],
        "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]], "fpn_hidden_size": 16,
    }  # fmt: skip
    config = transformers.Sam2Config(
        vision_config=vision, prompt_encoder_config=PROMPT | {"patch_size": 16}, mask_decoder_config=DECODER
    )
    return transformers.Sam2Model, config, STRETCHED


def sam2_video() -> tuple[Any, Any, dict[str, Any]]:
    """As checkpoints of SAM 2 are published: with what follows objects through a video, which images need not."""
    parts = sam2()[1].to_dict()
    memory = {
        "memory_attention_hidden_size": 16, "memory_attention_num_layers": 1, "memory_attention_feed_forward_hidden_size": 16,
        "memory_encoder_hidden_size": 16, "memory_encoder_output_channels": 8, "mask_downsampler_embed_dim": 16,
        "memory_fuser_embed_dim": 16, "memory_fuser_intermediate_dim": 16, "memory_attention_rope_feat_sizes": [4, 4],
    }  # fmt: skip
    names = ("vision_config", "prompt_encoder_config", "mask_decoder_config")
    config = transformers.Sam2VideoConfig(**{name: parts[name] for name in names}, **memory, image_size=64)
    return transformers.Sam2VideoModel, config, STRETCHED


KINDS = {"sam": sam, "sam_hq": sam_hq, "sam2": sam2, "sam2_video": sam2_video}


def checkpoint(folder: Path, kind: str) -> Path:
    model, config, processor = KINDS[kind]()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = model(config)
        for parameter in made.parameters():
            torch.nn.init.normal_(parameter, std=0.4)
    made.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder


def card_of(folder: Path) -> ModelCard:
    config = json.loads((folder / "config.json").read_text())
    files = tuple(sorted(path.name for path in folder.iterdir()))
    return ModelCard(
        name="m",
        path=str(folder),
        model_type=config["model_type"],
        architectures=tuple(config["architectures"]),
        files=files,
        config=config,
    )


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    draw = np.random.default_rng(seed)
    small = Image.fromarray(draw.integers(0, 256, (4, 4, 3), dtype=np.uint8))
    return small.resize((width, height), Image.Resampling.BICUBIC)


def media(image: Image.Image) -> Media:
    file = io.BytesIO()
    image.save(file, "PNG")
    return Media(data=file.getvalue())


def decoded(mask: Media) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(mask.data))) > 0


WIDE, TALL = picture(90, 50), picture(40, 70, seed=1)
POINTS = [[(20.0, 30.0)], [(60.0, 10.0), (5.0, 44.0)], [(33.5, 21.0)]]
BOXES = [(5.0, 5.0, 60.0, 40.0), (30.0, 2.0, 80.0, 48.0), (0.0, 0.0, 20.0, 49.0)]


class Segmenter(SkillSuite):
    """The suite, with a helper of the tests below."""

    skill = Vision()
    backend = CpuBackend()
    kind = "sam"

    def card(self, folder: Path) -> ModelCard:
        return card_of(checkpoint(folder, self.kind))

    def requests(self) -> Any:
        return {
            "mask-generation": [
                MaskGenerationRequest(inputs=media(WIDE), points=POINTS),
                MaskGenerationRequest(inputs=media(TALL), boxes=BOXES[:1]),
                MaskGenerationRequest(inputs=media(WIDE), points=POINTS[:1], labels=[[0]], boxes=BOXES[:1]),
            ]
        }

    def bad_requests(self) -> Any:
        image, task = media(WIDE), "mask-generation"
        wrong = [
            ({"points": []}, "points"),
            ({"points": [[]]}, "points"),
            ({"points": [[(1.0, 2.0)]] * 65}, "points"),
            ({"points": [[(float("nan"), 2.0)]]}, "points"),
            ({"points": [[(1e300, 2.0)]]}, "points"),
            ({"points": POINTS, "labels": [[1]]}, "labels"),
            ({"labels": [[1]]}, "labels"),
            ({"boxes": []}, "boxes"),
            ({"points": POINTS, "boxes": BOXES[:1]}, "boxes"),
            ({"points_per_crop": 0}, "points_per_crop"),
            ({"pred_iou_thresh": 2.0}, "pred_iou_thresh"),
        ]
        requests = [(task, MaskGenerationRequest(inputs=image, **fields), param) for fields, param in wrong]
        return [*requests, (task, MaskGenerationRequest(inputs=Media(data=b"no image")), "inputs")]

    def ask(self, folder: Path, *requests: MaskGenerationRequest) -> list[Any]:
        async def scenario(served: Any) -> list[Any]:
            return await asyncio.gather(*(served.ask("mask-generation", request) for request in requests))

        return self._serve(folder, scenario)


class TestSam(Segmenter):
    """One array of features."""


class TestSamHq(Segmenter):
    """Features, and the encoder's first states."""

    kind = "sam_hq"


class TestSam2(Segmenter):
    """A pyramid of features."""

    kind = "sam2"


@functools.cache
def loaded(folder: Path) -> Any:
    return transformers.AutoModelForMaskGeneration.from_pretrained(folder).eval()


def expected(folder: Path, image: Image.Image, points: Any, labels: Any, boxes: Any) -> tuple[np.ndarray, np.ndarray]:
    """Masks (objects, guesses, height, width) and scores of one image, by the whole model at once."""
    size, edge = (image.height, image.width), 64
    padded = "Sam2" not in (folder / "preprocessor_config.json").read_text()
    if padded:
        processor = transformers.models.sam.image_processing_pil_sam.SamImageProcessorPil.from_pretrained(folder)
        pixels = processor(image, return_tensors="pt")["pixel_values"]
        scale = edge / max(size)
        inner = tuple(int(side * scale + 0.5) for side in size)
    else:
        values = np.asarray(image.resize((edge, edge), Image.Resampling.BILINEAR), dtype=np.float32) / 255
        values = (values - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
        pixels, inner = torch.tensor(values, dtype=torch.float32).permute(2, 0, 1)[None], (edge, edge)
    factors = torch.tensor([inner[1] / size[1], inner[0] / size[0]])
    prompts: dict[str, Any] = {}
    if points is not None:
        prompts["input_points"] = torch.tensor([points]) * factors
        prompts["input_labels"] = torch.tensor([labels])
    if boxes is not None:
        prompts["input_boxes"] = (torch.tensor([boxes]).reshape(1, -1, 2, 2) * factors).reshape(1, -1, 4)
    model = loaded(folder)
    with torch.inference_mode():
        out = model(pixel_values=pixels, **prompts)
    low = out.pred_masks[0]
    if padded:
        low = interpolate(low, (edge, edge), mode="bilinear", align_corners=False)[..., : inner[0], : inner[1]]
    masks = interpolate(low, size, mode="bilinear", align_corners=False)
    return masks.numpy(), out.iou_scores[0].numpy()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("image", [WIDE, TALL], ids=["wide", "tall"])
def test_masks_are_those_of_transformers(tmp_path: Path, kind: str, image: Image.Image) -> None:
    suite = Segmenter()
    suite.kind = kind
    folder = checkpoint(tmp_path / "main", kind)
    single = [expected(folder, image, [POINTS[i]], [[1, 0][: len(POINTS[i])]], None) for i in range(3)]
    cut = float(np.median(single[1][0]))  # weights by chance have no sense of where 0 is
    one, two, three = suite.ask(
        tmp_path,
        MaskGenerationRequest(inputs=media(image), points=POINTS, labels=[[1], [1, 0], [1]], mask_threshold=cut),
        MaskGenerationRequest(inputs=media(image), boxes=BOXES, mask_threshold=cut),
        MaskGenerationRequest(inputs=media(image), points=[POINTS[1]], boxes=BOXES[:1]),
    )
    cases = [
        (one, np.concatenate([masks for masks, _ in single]), np.concatenate([scores for _, scores in single]), cut),
        (two, *expected(folder, image, None, None, BOXES), cut),
        (three, *expected(folder, image, [POINTS[1]], [[1, 1]], BOXES[:1]), 0.0),
    ]
    seen = set()
    for result, masks, scores, threshold in cases:
        flat = masks.reshape(-1, *masks.shape[-2:])
        assert len(result.results) == len(flat)
        np.testing.assert_allclose([mask.score for mask in result.results], scores.ravel(), atol=1e-4)
        for found, logits in zip(result.results, flat, strict=True):
            sure = abs(logits - threshold) > 1e-3 * max(1.0, float(logits.std()))  # nearer than that, rounding decides
            assert (decoded(found.mask) == (logits > threshold))[sure].all()
            seen.add(found.mask.data)
    assert len(seen) > 3, "masks that are all alike prove nothing"


def test_an_image_is_encoded_once_for_several_prompts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    original = transformers.SamModel.get_image_embeddings
    monkeypatch.setattr(
        transformers.SamModel,
        "get_image_embeddings",
        lambda self, pixel_values: calls.append(1) or original(self, pixel_values),
    )
    suite = TestSam()

    async def scenario(served: Any) -> None:
        calls.clear()  # the backend may have tried the entry
        for point in POINTS[0], POINTS[2]:
            await served.ask("mask-generation", MaskGenerationRequest(inputs=media(WIDE), points=[point]))
        await served.ask("mask-generation", MaskGenerationRequest(inputs=media(TALL), points=[POINTS[0]]))

    suite._serve(tmp_path, scenario)
    assert len(calls) == 2


def reference_search(folder: Path, image: Image.Image, side: int, cut: float, least_stability: float) -> list[Any]:
    """Every point of a grid for itself, then greedy suppression over boxes, by the rules of the automatic mask generator."""
    places = [(i + 0.5) / side for i in range(side)]
    found = []
    for y in places:
        for x in places:
            masks, scores = expected(folder, image, [[[x * image.width, y * image.height]]], [[1]], None)
            for logits, score in zip(masks[0], scores[0], strict=True):
                stability = (logits > cut + 0.01).sum() / max((logits > cut - 0.01).sum(), 1)
                if stability > least_stability:
                    rows, columns = np.nonzero(logits > cut)
                    box = (columns.min(), rows.min(), columns.max(), rows.max()) if len(rows) else (0, 0, 0, 0)
                    found.append((float(score), box))
    kept: list[Any] = []
    for score, box in sorted(found, key=lambda each: -each[0]):
        area = (box[2] - box[0]) * (box[3] - box[1])
        for _, other in kept:
            width = min(box[2], other[2]) - max(box[0], other[0])
            height = min(box[3], other[3]) - max(box[1], other[1])
            shared = max(width, 0) * max(height, 0)
            if shared > 0.97 * (area + (other[2] - other[0]) * (other[3] - other[1]) - shared):
                break
        else:
            kept.append((score, box))
    return kept


@pytest.mark.parametrize("kind", ["sam", "sam2"])
def test_without_prompts_a_grid_finds_what_there_is(tmp_path: Path, kind: str) -> None:
    suite = Segmenter()
    suite.kind = kind
    folder = checkpoint(tmp_path / "main", kind)
    cut = float(np.quantile(expected(folder, WIDE, [POINTS[0]], [[1]], None)[0], 0.95))
    kept = reference_search(folder, WIDE, 3, cut, 0.3)
    assert len({box for _, box in kept}) > 1, "one and the same mask proves nothing"

    fields = {"pred_iou_thresh": 0.0, "stability_score_thresh": 0.3, "stability_score_offset": 0.01}
    request = MaskGenerationRequest(inputs=media(WIDE), points_per_crop=3, crops_nms_thresh=0.97, mask_threshold=cut, **fields)
    (result,) = suite.ask(tmp_path, request)

    assert [mask.score for mask in result.results] == pytest.approx([score for score, _ in kept], abs=1e-4)
    for found, (_, box) in zip(result.results, kept, strict=True):
        rows, columns = np.nonzero(decoded(found.mask))
        assert (columns.min(), rows.min(), columns.max(), rows.max()) == box


def test_a_large_image_is_not_searched_and_says_what_to_send(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompts, "MOST_GRID_PIXELS", 1000)
    with pytest.raises(Exception, match="Send points or boxes") as refused:
        TestSam().ask(tmp_path, MaskGenerationRequest(inputs=media(WIDE)))
    assert refused.value.param == "points"  # type: ignore[attr-defined]


def test_of_doubles_the_best_stays_and_brings_back_what_its_victims_hid() -> None:
    def candidate(score: float, *box: int) -> Candidate:
        return Candidate(np.zeros((1, 1)), score, box)  # type: ignore[arg-type]

    first, second, third, empty = (
        candidate(0.9, 0, 0, 10, 10), candidate(0.8, 2, 0, 12, 10), candidate(0.7, 4, 0, 14, 10), candidate(0.6, 0, 0, 0, 0)
    )  # fmt: skip
    assert without_doubles([third, empty, second, first], 0.6) == [first, third, empty]
    assert without_doubles([], 0.5) == []


@pytest.mark.parametrize("size", [(90, 50), (40, 70), (64, 64), (1, 1), (3, 200)])
def test_pixels_are_those_of_the_processor(tmp_path: Path, size: tuple[int, int]) -> None:
    folder = checkpoint(tmp_path / "m", "sam")
    processor = transformers.models.sam.image_processing_pil_sam.SamImageProcessorPil.from_pretrained(folder)
    image = picture(*size)
    try:
        theirs = processor(image, return_tensors="np")["pixel_values"][0]
    except ValueError:
        pytest.skip("the processor takes no image of such a shape")
    np.testing.assert_allclose(PixelRecipe.of(card_of(folder)).pixels(image), theirs, atol=1e-5)
