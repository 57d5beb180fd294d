"""Heads, as tasks and programs, from small files of the checkpoint alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from modelport.contract import ArraySpec, ConfigurationError, Forward, ModelCard, Output, Program
from modelport_hf.image_processor import image_settings

__all__ = ["fixed_size", "program_of", "task_of"]

_TASKS = {
    "image-classification": "image-classification",
    "object-detection": "object-detection",
    "semantic-segmentation": "image-segmentation",
    "universal-segmentation": "image-segmentation",
    "depth-estimation": "depth-estimation",
    "feature-extraction": "image-feature-extraction",
    "keypoint-detection": "keypoint-detection",
    "video-classification": "video-classification",
}

_OUTPUTS = {
    "image-classification": ("logits",),
    "object-detection": ("logits", "pred_boxes"),
    "semantic-segmentation": ("logits",),
    "universal-segmentation": ("class_queries_logits", "masks_queries_logits"),
    "depth-estimation": ("predicted_depth",),
    "feature-extraction": ("last_hidden_state",),
    "keypoint-detection": ("keypoints", "scores", "descriptors", "mask"),
    "video-classification": ("logits",),
}

_MASKED = frozenset({"object-detection", "universal-segmentation"})
"""Heads whose processors may pad an image, and then say where."""


_SQUARED = frozenset({"image-classification", "feature-extraction", "video-classification"})
"""Heads over models that may take a single size, and cannot be converted with open ones."""


def fixed_size(card: ModelCard) -> tuple[int, int] | None:
    """(height, width) that the checkpoint's processor makes of every image, or None if that depends on the image."""
    try:
        own = image_settings(Path(card.path)) if card.path else {}
    except ConfigurationError:
        return None  # the session will say what is wrong with the file
    if own.get("do_center_crop") is True:
        return _sides(own.get("crop_size"))
    if own.get("do_resize") is True and not own.get("keep_aspect_ratio") and not own.get("do_pad"):
        return _sides(own.get("size"))
    return None


def _sides(size: Any) -> tuple[int, int] | None:
    height, width = (size.get("height"), size.get("width")) if isinstance(size, dict) else (None, None)
    return (height, width) if isinstance(height, int) and isinstance(width, int) else None


def task_of(head: str | None) -> str | None:
    """The task that a head does, or None."""
    return _TASKS.get(head or "")


def program_of(card: ModelCard, head: str) -> Program:
    """One forward over prepared pixels, whose height and width are open unless the processor makes them always the same."""
    size = fixed_size(card) if head in _SQUARED else None
    frames = ("frames",) if head == "video-classification" else ()
    channels = card.config.get("num_channels")
    colours = channels if isinstance(channels, int) and channels > 0 else 3
    inputs = [ArraySpec("pixel_values", "float32", ("batch", *frames, colours, *(size or ("height", "width"))))]
    if head in _MASKED:
        inputs.append(ArraySpec("pixel_mask", "int64", ("batch", "height", "width")))
    outputs = _OUTPUTS[head]
    if card.architectures[0].endswith("ForSegmentation"):
        outputs = ("logits", "pred_boxes", "pred_masks")
    entry = Forward(head=head, inputs=tuple(inputs), outputs=tuple(Output(name) for name in outputs))
    return Program({"main": entry})
