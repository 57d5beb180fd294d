"""What a head says of an image, as the task's result. The checkpoint's processor has the rules; torch is imported with it."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from modelport.contract import InvalidRequest, ModelCard
from modelport.tasks.text import LabelScore
from modelport.tasks.vision import (
    Box,
    DepthResult,
    DetectedObject,
    DetectionResult,
    ImageFeaturesResult,
    Keypoint,
    KeypointResult,
    LabelsResult,
    Segment,
    SegmentationRequest,
    SegmentationResult,
)
from modelport_hf.activation import activated
from modelport_hf.media import png

__all__ = ["Answerer"]

_SUBTASKS = ("panoptic", "instance", "semantic")
_MOST_MASK_PIXELS = 1_250_000_000
"""Most pixels of all masks of an image together, 5 GB of floats: a hundred masks of a photograph of 12 million pixels."""

_MOST_DEPTH_PIXELS = 4096 * 4096
"""Each is a number in the answer, and in JSON twenty bytes."""

_SHARES = ("threshold", "mask_threshold", "overlap_mask_area_threshold")


class Answerer:
    """Results of one task with one checkpoint.

    Args:
        labels: By index of a class.
    """

    def __init__(self, task: str, card: ModelCard, processor: Any, labels: Sequence[str]) -> None:
        self._card = card
        self._processor = processor
        self._labels = labels
        self._make = {
            "image-classification": self._scores,
            "video-classification": self._scores,
            "object-detection": self._objects,
            "image-segmentation": self._segments,
            "depth-estimation": self._depth,
            "image-feature-extraction": self._features,
            "keypoint-detection": self._keypoints,
        }[task]
        self._is_semantic = card.architectures[0].endswith("ForSemanticSegmentation")
        has = [name for name in _SUBTASKS if hasattr(processor, f"post_process_{name}_segmentation")]
        self._subtasks = ["semantic"] if self._is_semantic else has

    def __call__(self, request: Any, output: Mapping[str, np.ndarray], size: tuple[int, int]) -> Any:
        """The result, for an image of `size` (height, width); `output` has the arrays of one row."""
        return self._make(request, output, size)

    def check(self, request: Any) -> None:
        """Returns if the request's options can be honoured.

        Raises:
            InvalidRequest: naming the field.
        """
        top_k = getattr(request, "top_k", None)
        if top_k is not None and top_k < 1:
            raise InvalidRequest(f"top_k is {top_k}; it must be at least 1.", param="top_k")
        for name in _SHARES:
            value = getattr(request, name, 0.0)
            if not 0 <= value <= 1:
                raise InvalidRequest(f"{name} is {value}; it must be from 0 to 1.", param=name)
        subtask = getattr(request, "subtask", None)
        if subtask is not None and subtask not in self._subtasks:
            raise InvalidRequest(
                f"This model does no {subtask} segmentation; it does {' and '.join(self._subtasks) or 'none'}.", param="subtask"
            )

    def _scores(self, request: Any, output: Mapping[str, np.ndarray], size: tuple[int, int]) -> LabelsResult:
        logits = output["logits"].astype(np.float64)
        scores = activated(request.function_to_apply or self._activation(), logits)
        order = np.argsort(-scores, kind="stable")[: request.top_k]
        return LabelsResult(results=[LabelScore(self._label(i), float(scores[i])) for i in order])

    def _objects(self, request: Any, output: Mapping[str, np.ndarray], size: tuple[int, int]) -> DetectionResult:
        rules = self._processor.post_process_object_detection
        (found,) = rules(_batch_of_one(output), threshold=request.threshold, target_sizes=[size])
        scores, labels, boxes = (found[name].numpy() for name in ("scores", "labels", "boxes"))
        order = np.argsort(-scores, kind="stable")
        results = [
            DetectedObject(self._label(labels[i]), float(scores[i]), Box(*(int(side) for side in boxes[i]))) for i in order
        ]
        return DetectionResult(results=results)

    def _segments(
        self, request: SegmentationRequest, output: Mapping[str, np.ndarray], size: tuple[int, int]
    ) -> SegmentationResult:
        subtask = request.subtask or self._subtasks[0]
        rules = getattr(self._processor, f"post_process_{subtask}_segmentation")
        if self._is_semantic:
            return self._by_class(_classes(output["logits"], size))
        _refuse_many(_large_planes(subtask, output, request.threshold), size)
        outputs = _batch_of_one(output)
        if subtask == "semantic":
            return self._by_class(rules(outputs, target_sizes=[size])[0].numpy())
        known = inspect.signature(rules).parameters  # EoMT's rules for instances know no overlap
        options = {name: getattr(request, name) for name in _SHARES if name in known}
        if "label_ids_to_fuse" in known:
            options["label_ids_to_fuse"] = set()  # what None means too, which is logged at every call
        found = rules(outputs, target_sizes=[size], **options)[0]
        places = found["segmentation"].numpy()
        return SegmentationResult(
            results=[
                Segment(self._label(part["label_id"]), _mask(places == part["id"]), float(part["score"]))
                for part in found["segments_info"]
            ]
        )

    def _by_class(self, classes: np.ndarray) -> SegmentationResult:
        """A part for each class of (height, width) that some pixel has."""
        found = np.unique(classes)
        _refuse_many(len(found), classes.shape)
        return SegmentationResult(results=[Segment(self._label(index), _mask(classes == index)) for index in found])

    def _depth(self, request: Any, output: Mapping[str, np.ndarray], size: tuple[int, int]) -> DepthResult:
        if size[0] * size[1] > _MOST_DEPTH_PIXELS:
            raise InvalidRequest(
                f"The image has {size[1]} × {size[0]} pixels, and depth is given, as a number for each, of at most"
                f" {_MOST_DEPTH_PIXELS / 1e6:.1f} million. Make the image smaller.",
                param="inputs",
            )
        rules = self._processor.post_process_depth_estimation
        # ZoeDepth's processor pads the image by a share of its size, and takes that off again.
        options = {"source_sizes": [size]} if "source_sizes" in inspect.signature(rules).parameters else {}
        found = rules(_batch_of_one(output), target_sizes=[size], **options)[0]
        depth = np.ascontiguousarray(found["predicted_depth"].float().numpy())
        most = float(depth.max(initial=0.0))
        grey = np.clip(depth * (255 / most) if most > 0 else np.zeros_like(depth), 0, 255).astype(np.uint8)
        return DepthResult(depth=png(grey), predicted_depth=depth)

    def _features(self, request: Any, output: Mapping[str, np.ndarray], size: tuple[int, int]) -> ImageFeaturesResult:
        return ImageFeaturesResult(features=np.ascontiguousarray(output["last_hidden_state"], dtype=np.float32))

    def _keypoints(self, request: Any, output: Mapping[str, np.ndarray], size: tuple[int, int]) -> KeypointResult:
        found = self._processor.post_process_keypoint_detection(_batch_of_one(output), [size])[0]
        points, scores, descriptors = (found[name].numpy() for name in ("keypoints", "scores", "descriptors"))
        kept = [index for index in range(len(scores)) if scores[index] > request.threshold]
        return KeypointResult(
            results=[Keypoint(int(points[i][0]), int(points[i][1]), float(scores[i])) for i in kept],
            descriptors=np.ascontiguousarray(descriptors[kept], dtype=np.float32),
        )

    def _activation(self) -> str:
        several = self._card.config.get("problem_type") == "multi_label_classification"
        return "sigmoid" if several or len(self._labels) == 1 else "softmax"

    def _label(self, index: Any) -> str:
        return self._labels[index] if 0 <= index < len(self._labels) else f"LABEL_{index}"


def _batch_of_one(output: Mapping[str, np.ndarray]) -> Any:
    """A model's output as the processor's rules take it: attributes that are tensors, with a batch axis."""
    import torch

    tensors = {}
    for name, array in output.items():
        # Rows of a batch are views of an array that others read too.
        tensors[name] = torch.from_numpy(np.array(array[None]))
    return SimpleNamespace(**tensors)


def _classes(logits: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The class of each pixel, int64 `size`: the largest of `logits` (classes, rows, columns), each grown to `size`.

    What the processors of such models do, but class by class: a photograph with 150 classes takes gigabytes at once.
    """
    import torch
    from torch.nn.functional import interpolate

    best = torch.full(size, -torch.inf)
    found = torch.zeros(size, dtype=torch.int64)
    for index, small in enumerate(torch.from_numpy(np.array(logits, dtype=np.float32))):
        grown = interpolate(small[None, None], size, mode="bilinear", align_corners=False)[0, 0]
        found.masked_fill_(grown > best, index)
        best = torch.maximum(best, grown)
    return found.numpy()


def _large_planes(subtask: str, output: Mapping[str, np.ndarray], threshold: float) -> int:
    """How many masks a processor's rules grow to the image's size: of each class, each query, or each that is sure enough."""
    logits = output["class_queries_logits"] if "class_queries_logits" in output else output["logits"]
    if subtask == "semantic":
        return int(logits.shape[-1]) - 1
    if subtask == "instance":
        return int(logits.shape[0])
    scores = np.exp(logits - logits.max(-1, keepdims=True).astype(np.float64))
    is_sure = scores.max(-1) > threshold * scores.sum(-1)
    return int((is_sure & (logits.argmax(-1) < logits.shape[-1] - 1)).sum())


def _refuse_many(planes: int, size: tuple[int, int]) -> None:
    """Returns if so many masks of the image's size are not too many for a machine's memory.

    Raises:
        InvalidRequest: if they are.
    """
    if planes * size[0] * size[1] > _MOST_MASK_PIXELS:
        raise InvalidRequest(
            f"The image has {size[1]} × {size[0]} pixels, and {planes} masks as large as it would have to be made, which"
            f" may have {_MOST_MASK_PIXELS / 1e9:g} billion pixels together. Make the image smaller.",
            param="inputs",
        )


def _mask(inside: np.ndarray) -> Any:
    return png(np.where(inside, np.uint8(255), np.uint8(0)))
