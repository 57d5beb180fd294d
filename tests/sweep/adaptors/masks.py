"""A point of an image to masks of what it may be on."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from images import mask, media, opened, pictures, write_processor

SETTINGS: dict[str, Any] = {}
STRETCHED = ("sam2", "sam2_video", "sam3_tracker", "sam3_video")
"""Their image processors exist on torchvision only: an image is stretched to the model's square, by Pillow here."""
SIDE = 64
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
POINTS = ((20.0, 15.0), (10.0, 40.0), (45.0, 25.0))


def equip(pair: Any, model: Any, folder: Path) -> Any:
    if pair.model_type in STRETCHED:
        folder.mkdir(parents=True, exist_ok=True)
        settings = {"image_processor_type": "Sam2ImageProcessor", "size": {"height": SIDE, "width": SIDE}}
        (folder / "preprocessor_config.json").write_text(json.dumps(settings))
        return None
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES

    eyes = write_processor(pair, model, folder)
    name = PROCESSOR_MAPPING_NAMES.get(pair.model_type) or "Sam2Processor"
    return getattr(importlib.import_module("transformers"), name)(eyes)


def requests(pair: Any, model: Any, tools: Any) -> list[dict[str, Any]]:
    return [{"inputs": media(image), "points": [[point]]} for image, point in zip(pictures(), POINTS, strict=True)]


def expected(model: Any, tools: Any, request: dict[str, Any]) -> Any:
    image = opened(request["inputs"])
    if tools is None:
        return _stretched(model, image, request["points"])
    points = [[list(map(list, each)) for each in request["points"]]]
    inputs = tools(images=image, input_points=points, return_tensors="pt")
    sizes = {name: inputs.pop(name) for name in ("original_sizes", "reshaped_input_sizes") if name in inputs}
    output = model(**inputs)
    masks = tools.post_process_masks(output.pred_masks, *(size.tolist() for size in sizes.values()))[0]
    return [[float(score), found.double().numpy()] for score, found in zip(output.iou_scores[0, 0], masks[0], strict=True)]


def _stretched(model: Any, image: Any, points: Any) -> Any:
    import torch
    from PIL import Image

    small = np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BILINEAR), np.float32) / 255
    values = torch.tensor((small - np.array(MEAN)) / np.array(STD), dtype=torch.float32).permute(2, 0, 1)[None]
    scaled = torch.tensor([points]) * torch.tensor([SIDE / image.width, SIDE / image.height])
    output = model(pixel_values=values, input_points=scaled, input_labels=torch.ones(1, 1, 1, dtype=torch.long))
    masks = torch.nn.functional.interpolate(output.pred_masks[0], (image.height, image.width), mode="bilinear")[0] > 0
    return [[float(score), found.double().numpy()] for score, found in zip(output.iou_scores[0, 0], masks, strict=True)]


def answered(result: Any, request: dict[str, Any], index: int) -> Any:
    return [[each.score, mask(each.mask)] for each in result.results]
