"""Images to points that can be found again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from images import media, opened, pictures, pixels, write_processor

SETTINGS: dict[str, Any] = {}


def equip(pair: Any, model: Any, folder: Path) -> Any:
    return write_processor(pair, model, folder)


def requests(pair: Any, model: Any, tools: Any) -> list[dict[str, Any]]:
    return [{"inputs": media(image)} for image in pictures()]


def expected(model: Any, tools: Any, request: dict[str, Any]) -> Any:
    image = opened(request["inputs"])
    output = model(**pixels(model, tools, image))
    (found,) = tools.post_process_keypoint_detection(output, [(image.height, image.width)])
    return {"points": found["keypoints"].double().numpy() + 1, "descriptors": found["descriptors"].float().numpy()}


def answered(result: Any, request: dict[str, Any], index: int) -> Any:
    return {"points": np.array([[each.x, each.y] for each in result.results]) + 1.0, "descriptors": result.descriptors}
