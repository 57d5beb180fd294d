"""Heads, as tasks and programs, from small files of the checkpoint alone."""

from __future__ import annotations

from modelport.contract import ArraySpec, Forward, ModelCard, Output, Program
from modelport_hf.image_processor import fixed_size

__all__ = ["program_of", "task_of"]

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

_OF_VIDEOS = frozenset({"timesformer", "videomae", "vivit"})
"""Model types whose features are those of a video."""

_OWN_INPUTS = {
    "imagegpt": (ArraySpec("input_ids", axes=("batch", "pixels")),),
    "siglip2": (
        ArraySpec("pixel_values", "float32", ("batch", "patches", "width")),
        ArraySpec("pixel_attention_mask", axes=("batch", "patches")),
        ArraySpec("spatial_shapes", axes=("batch", 2)),
    ),
}
"""What model types take whose processors make no plain pixels: colours by number, and patches in a row."""

_SQUARED = frozenset(
    {"image-classification", "feature-extraction", "video-classification", "semantic-segmentation", "object-detection"}
)
"""Heads over models that may take a single size, and cannot be converted with open ones."""


def task_of(head: str | None) -> str | None:
    """The task that a head does, or None."""
    return _TASKS.get(head or "")


def program_of(card: ModelCard, head: str) -> Program:
    """One forward over prepared pixels, whose height and width are open unless the processor makes them always the same."""
    size = fixed_size(card) if head in _SQUARED else None
    takes_videos = head == "video-classification" or (head == "feature-extraction" and card.model_type in _OF_VIDEOS)
    frames = ("frames",) if takes_videos else ()
    channels = card.config.get("num_channels")
    colours = channels if isinstance(channels, int) and channels > 0 else 3
    pixels = ArraySpec("pixel_values", "float32", ("batch", *frames, colours, *(size or ("height", "width"))))
    inputs = list(_OWN_INPUTS.get(card.model_type, (pixels,)))
    if head in _MASKED and size is None:  # images of one size have no padding
        inputs.append(ArraySpec("pixel_mask", "int64", ("batch", "height", "width")))
    outputs = _OUTPUTS[head]
    if card.architectures[0].endswith("ForSegmentation"):
        outputs = ("logits", "pred_boxes", "pred_masks")
    sources = {"logits": "last_hidden_state"} if card.model_type == "pp_lcnet" else {}  # what its logits are called
    named = tuple(Output(name, source=sources.get(name, "")) for name in outputs)
    entry = Forward(head=head, inputs=tuple(inputs), outputs=named)
    return Program({"main": entry})
