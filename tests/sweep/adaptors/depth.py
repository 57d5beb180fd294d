"""Images to the depth of each pixel."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

from images import media, opened, pictures, pixels, write_processor

SETTINGS: dict[str, Any] = {}


def equip(pair: Any, model: Any, folder: Path) -> Any:
    return write_processor(pair, model, folder)


def requests(pair: Any, model: Any, tools: Any) -> list[dict[str, Any]]:
    return [{"inputs": media(image)} for image in pictures()]


def expected(model: Any, tools: Any, request: dict[str, Any]) -> Any:
    image = opened(request["inputs"])
    output = model(**pixels(model, tools, image))
    size = [(image.height, image.width)]
    options = (
        {"source_sizes": size} if "source_sizes" in inspect.signature(tools.post_process_depth_estimation).parameters else {}
    )
    (found,) = tools.post_process_depth_estimation(output, target_sizes=size, **options)
    return found["predicted_depth"].squeeze().numpy()


def answered(result: Any, request: dict[str, Any], index: int) -> Any:
    return result.predicted_depth
