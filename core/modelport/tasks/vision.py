"""The built-in tasks on images, under the Hub's pipeline tags and with the field names of its inference clients."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
import numpy as np

from modelport.contract.task import Media, Task
from modelport.tasks.text import LabelScore

__all__ = [
    "DEPTH_ESTIMATION",
    "IMAGE_CLASSIFICATION",
    "IMAGE_FEATURE_EXTRACTION",
    "IMAGE_SEGMENTATION",
    "KEYPOINT_DETECTION",
    "MASK_GENERATION",
    "MOST_FRAMES",
    "OBJECT_DETECTION",
    "VIDEO_CLASSIFICATION",
    "Box",
    "DepthRequest",
    "DepthResult",
    "DetectedObject",
    "DetectionRequest",
    "DetectionResult",
    "GeneratedMask",
    "ImageClassificationRequest",
    "ImageFeaturesRequest",
    "ImageFeaturesResult",
    "Keypoint",
    "KeypointRequest",
    "KeypointResult",
    "LabelsResult",
    "MaskGenerationRequest",
    "MaskGenerationResult",
    "Segment",
    "SegmentationRequest",
    "SegmentationResult",
    "VideoClassificationRequest",
]

MOST_FRAMES = 256
"""Most frames of one request."""

# ---------------------------------------------------------------------------------------------- image-classification


class ImageClassificationRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """An image to label.

    Args:
        inputs: The image, as bytes or a data URL.
        top_k: The best so many labels, at least 1; `None` gives all.
        function_to_apply: How logits become scores; `None` leaves it to the checkpoint (softmax, or sigmoid for a single label
            and for problems of several labels at once).
    """

    inputs: Media
    top_k: int | None = None
    function_to_apply: Literal["softmax", "sigmoid", "none"] | None = None


class LabelsResult(msgspec.Struct, kw_only=True):
    """Labels, best first."""

    results: list[LabelScore]


IMAGE_CLASSIFICATION: Task[ImageClassificationRequest, LabelsResult, Any] = Task(
    "image-classification", ImageClassificationRequest, LabelsResult, summary="An image to labels"
)

# ---------------------------------------------------------------------------------------------- video-classification


class VideoClassificationRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A video to label.

    Args:
        inputs: A video file (MP4, WebM, MKV, AVI), or its frames in order, each an image, at most 256. Of more frames than the
            model takes, as many as it takes are chosen evenly; fewer are refused.
        top_k: As for images.
        function_to_apply: As for images.
    """

    inputs: Media | list[Media]
    top_k: int | None = None
    function_to_apply: Literal["softmax", "sigmoid", "none"] | None = None


VIDEO_CLASSIFICATION: Task[VideoClassificationRequest, LabelsResult, Any] = Task(
    "video-classification", VideoClassificationRequest, LabelsResult, summary="A video, or its frames, to labels"
)

# -------------------------------------------------------------------------------------------------- object-detection


class DetectionRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """An image to find objects in, above the score `threshold` in [0, 1]."""

    inputs: Media
    threshold: float = 0.5


class Box(msgspec.Struct):
    """A rectangle in pixels of the image, from its top left corner."""

    xmin: int
    ymin: int
    xmax: int
    ymax: int


class DetectedObject(msgspec.Struct):
    """One object."""

    label: str
    score: float
    box: Box


class DetectionResult(msgspec.Struct, kw_only=True):
    """Objects, best first."""

    results: list[DetectedObject]


OBJECT_DETECTION: Task[DetectionRequest, DetectionResult, Any] = Task(
    "object-detection", DetectionRequest, DetectionResult, summary="Objects in an image, and where they are"
)

# ------------------------------------------------------------------------------------------------ image-segmentation


class SegmentationRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """An image to divide.

    Args:
        inputs: The image.
        subtask: `None` takes the first that the model does of panoptic, instance and semantic.
        threshold: The least score of a segment; not for semantic.
        mask_threshold: The least probability of a pixel of a mask; not for semantic.
        overlap_mask_area_threshold: Smaller parts of a segment than this share are left out; for panoptic.
    """

    inputs: Media
    subtask: Literal["semantic", "instance", "panoptic"] | None = None
    threshold: float = 0.9
    mask_threshold: float = 0.5
    overlap_mask_area_threshold: float = 0.5


class Segment(msgspec.Struct):
    """A part of the image: `mask` is a PNG of the image's size, 255 where the part is. Semantic parts have no score."""

    label: str
    mask: Media
    score: float | None = None


class SegmentationResult(msgspec.Struct, kw_only=True):
    """The parts; semantic ones by label index."""

    results: list[Segment]


IMAGE_SEGMENTATION: Task[SegmentationRequest, SegmentationResult, Any] = Task(
    "image-segmentation", SegmentationRequest, SegmentationResult, summary="The parts of an image, as masks"
)

# --------------------------------------------------------------------------------------------------- mask-generation


class MaskGenerationRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """An image whose objects are to be cut out, those that points or boxes show, or all.

    Args:
        inputs: The image.
        points: For each object its points (x, y), in pixels of the image: at most 64 objects and 1024 points.
        labels: For each point 1 if it is on the object (the default), 0 if it is beside it.
        boxes: For each object a rectangle (x1, y1, x2, y2) around it; with points too, as many of these.
        mask_threshold: The logit above which a pixel is the object's.
        points_per_crop: Without points and boxes: how many points lie along each side of the grid that finds objects, 1 to 32.
        pred_iou_thresh: Without points and boxes: the least score of a mask.
        stability_score_thresh: Without points and boxes: how much of a mask must stay as the threshold moves by
            `stability_score_offset`.
        stability_score_offset: See above.
        crops_nms_thresh: Without points and boxes: of two masks whose boxes overlap by more than this, the better stays.
    """

    inputs: Media
    points: list[list[tuple[float, float]]] | None = None
    labels: list[list[Literal[0, 1]]] | None = None
    boxes: list[tuple[float, float, float, float]] | None = None
    mask_threshold: float = 0.0
    points_per_crop: int = 32
    pred_iou_thresh: float = 0.88
    stability_score_thresh: float = 0.95
    stability_score_offset: float = 1.0
    crops_nms_thresh: float = 0.7


class GeneratedMask(msgspec.Struct):
    """An object: `mask` is a PNG of the image's size, 255 where it is; `score` is the model's guess at how well it fits."""

    mask: Media
    score: float


class MaskGenerationResult(msgspec.Struct, kw_only=True):
    """Masks. For each object that was shown, in order, the model's guesses (three, from a part to the whole, for most models);
    of a whole image the masks that are left, best first."""

    results: list[GeneratedMask]


MASK_GENERATION: Task[MaskGenerationRequest, MaskGenerationResult, Any] = Task(
    "mask-generation", MaskGenerationRequest, MaskGenerationResult, summary="Objects of an image, cut out"
)

# -------------------------------------------------------------------------------------------------- depth-estimation


class DepthRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """An image to estimate the depth of."""

    inputs: Media


class DepthResult(msgspec.Struct, kw_only=True):
    """`predicted_depth` is float32 (height, width) of the image, in the model's unit; `depth` is a grey PNG of it, scaled so that
    its largest value is 255."""

    depth: Media
    predicted_depth: np.ndarray


DEPTH_ESTIMATION: Task[DepthRequest, DepthResult, Any] = Task(
    "depth-estimation", DepthRequest, DepthResult, summary="How far each pixel of an image is"
)

# ------------------------------------------------------------------------------------------ image-feature-extraction


class ImageFeaturesRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """An image to embed, or a video file for a model of videos."""

    inputs: Media


class ImageFeaturesResult(msgspec.Struct, kw_only=True):
    """float32: the model's last hidden state, (tokens, width), or (channels, rows, columns) of a convolutional model; (width,) of
    one that embeds texts beside images."""

    features: np.ndarray


IMAGE_FEATURE_EXTRACTION: Task[ImageFeaturesRequest, ImageFeaturesResult, Any] = Task(
    "image-feature-extraction", ImageFeaturesRequest, ImageFeaturesResult, summary="An image to features"
)

# ------------------------------------------------------------------------------------------------ keypoint-detection


class KeypointRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """An image to find keypoints in, above the score `threshold`."""

    inputs: Media
    threshold: float = 0.0


class Keypoint(msgspec.Struct):
    """A point in pixels of the image, from its top left corner."""

    x: int
    y: int
    score: float


class KeypointResult(msgspec.Struct, kw_only=True):
    """Points, and row i of `descriptors` (points, width) float32 for point i."""

    results: list[Keypoint]
    descriptors: np.ndarray


KEYPOINT_DETECTION: Task[KeypointRequest, KeypointResult, Any] = Task(
    "keypoint-detection", KeypointRequest, KeypointResult, summary="Points of an image that can be found again"
)
