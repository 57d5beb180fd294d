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
        is_whole = card.architectures[0].endswith("ForSemanticSegmentation")
        has = [name for name in _SUBTASKS if hasattr(processor, f"post_process_{name}_segmentation")]
        self._subtasks = ["semantic"] if is_whole else has

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
        outputs = _batch_of_one(output)
        if subtask == "semantic":
            classes = rules(outputs, target_sizes=[size])[0].numpy()
            return SegmentationResult(
                results=[Segment(self._label(index), _mask(classes == index)) for index in np.unique(classes)]
            )
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

    def _depth(self, request: Any, output: Mapping[str, np.ndarray], size: tuple[int, int]) -> DepthResult:
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


def _mask(inside: np.ndarray) -> Any:
    return png(np.where(inside, np.uint8(255), np.uint8(0)))
