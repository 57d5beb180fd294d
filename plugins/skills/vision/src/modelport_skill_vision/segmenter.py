"""Models that cut out what they are shown: an image is encoded once, and each prompt decoded against it. Pure."""

from __future__ import annotations

from modelport.contract import ArraySpec, Forward, ModelCard, Output, Program
from modelport_skill_vision.pixels import PixelRecipe

__all__ = ["is_segmenter", "segmenter_program"]

_HEAD = "mask-generation"


def is_segmenter(card: ModelCard) -> bool:
    """Whether a checkpoint decodes masks from prompts, as far as its config.json tells."""
    return {"mask_decoder_config", "prompt_encoder_config"} <= card.config.keys()


def segmenter_program(card: ModelCard) -> Program:
    """`image` makes features that stay on the device, `prompt` takes them with points and boxes.

    What the features are depends on the family: one array, one and the encoder's first states, or a pyramid.
    """
    height, width = PixelRecipe.of(card).shape
    pixels = ArraySpec("pixel_values", "float32", ("batch", 3, height, width))
    sources = _features(card)
    kept = tuple(Output(name, source=source, keep=True) for name, source in sources.items())
    features = tuple(
        ArraySpec(name, "float32", ("batch", *(f"{axis}{level}" for axis in ("channels", "rows", "columns"))))
        for level, name in enumerate(sources)
    )
    prompts = (
        ArraySpec("input_points", "float32", ("batch", "objects", "points", 2), optional=True),
        ArraySpec("input_labels", "int64", ("batch", "objects", "points"), optional=True),
        ArraySpec("input_boxes", "float32", ("batch", "objects", 4), optional=True),
    )
    masks = (Output("iou_scores"), Output("pred_masks"))
    return Program(
        {
            "image": Forward(head=_HEAD, call="get_image_embeddings", inputs=(pixels,), outputs=kept),
            "prompt": Forward(head=_HEAD, inputs=(*features, *prompts), outputs=masks),
        }
    )


def _features(card: ModelCard) -> dict[str, str]:
    """Where each argument of the decoder comes from in what the encoder returns."""
    if card.model_type == "sam":
        return {"image_embeddings": ""}
    if card.model_type == "sam_hq":
        return {"image_embeddings": "0", "intermediate_embeddings.0": "1.0"}
    levels = (card.config.get("vision_config") or {}).get("num_feature_levels", 3)
    return {f"image_embeddings.{level}": str(level) for level in range(levels if isinstance(levels, int) else 3)}
