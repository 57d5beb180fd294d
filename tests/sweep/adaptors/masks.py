"""A point of an image to masks of what it may be on."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from images import mask, media, opened, pictures, write_processor

SETTINGS: dict[str, Any] = {}
POINTS = ((20.0, 15.0), (10.0, 40.0), (45.0, 25.0))


def equip(pair: Any, model: Any, folder: Path) -> Any:
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES

    eyes = write_processor(pair, model, folder)
    name = PROCESSOR_MAPPING_NAMES.get(pair.model_type) or "Sam2Processor"
    return getattr(importlib.import_module("transformers"), name)(eyes)


def requests(pair: Any, model: Any, tools: Any) -> list[dict[str, Any]]:
    return [{"inputs": media(image), "points": [[point]]} for image, point in zip(pictures(), POINTS, strict=True)]


def expected(model: Any, tools: Any, request: dict[str, Any]) -> Any:
    image = opened(request["inputs"])
    points = [[list(map(list, each)) for each in request["points"]]]
    inputs = tools(images=image, input_points=points, return_tensors="pt")
    sizes = {name: inputs.pop(name) for name in ("original_sizes", "reshaped_input_sizes") if name in inputs}
    output = model(**inputs)
    masks = tools.post_process_masks(output.pred_masks, *(size.tolist() for size in sizes.values()))[0]
    return [[float(score), found.double().numpy()] for score, found in zip(output.iou_scores[0, 0], masks[0], strict=True)]


def answered(result: Any, request: dict[str, Any], index: int) -> Any:
    return [[each.score, mask(each.mask)] for each in result.results]
