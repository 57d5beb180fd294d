"""Images to the best five objects in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from images import media, opened, pictures, pixels, write_processor
from labels import THREE

SETTINGS: dict[str, Any] = THREE

MOST = 5


def equip(pair: Any, model: Any, folder: Path) -> Any:
    return write_processor(pair, model, folder)


def requests(pair: Any, model: Any, tools: Any) -> list[dict[str, Any]]:
    return [{"inputs": media(image), "threshold": 0.0} for image in pictures()]


def expected(model: Any, tools: Any, request: dict[str, Any]) -> Any:
    image = opened(request["inputs"])
    output = model(**pixels(model, tools, image))
    (found,) = tools.post_process_object_detection(output, threshold=0.0, target_sizes=[(image.height, image.width)])
    best = np.argsort(-found["scores"].numpy(), kind="stable")[:MOST]
    return [
        [model.config.id2label[int(found["labels"][n])], float(found["scores"][n]), found["boxes"][n].numpy().astype(int) + 1.0]
        for n in best
    ]


def answered(result: Any, request: dict[str, Any], index: int) -> Any:
    return [
        [each.label, each.score, np.array([each.box.xmin, each.box.ymin, each.box.xmax, each.box.ymax]) + 1.0]
        for each in result.results[:MOST]
    ]
