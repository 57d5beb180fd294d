"""Images to the masks of their parts."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np
from images import mask, media, opened, pictures, pixels, write_processor
from labels import THREE

SETTINGS: dict[str, Any] = THREE

OPTIONS = {"threshold": 0.0, "mask_threshold": 0.5, "overlap_mask_area_threshold": 0.0}
SUBTASKS = ("panoptic", "instance", "semantic")


def equip(pair: Any, model: Any, folder: Path) -> Any:
    return write_processor(pair, model, folder)


def requests(pair: Any, model: Any, tools: Any) -> list[dict[str, Any]]:
    whole = pair.head == "semantic-segmentation"
    subtask = next(name for name in SUBTASKS[2 * whole :] if hasattr(tools, f"post_process_{name}_segmentation"))
    return [{"inputs": media(image), "subtask": subtask, **OPTIONS} for image in pictures()]


def expected(model: Any, tools: Any, request: dict[str, Any]) -> Any:
    image = opened(request["inputs"])
    output = model(**pixels(model, tools, image))
    rules = getattr(tools, f"post_process_{request['subtask']}_segmentation")
    size = [(image.height, image.width)]
    names = model.config.id2label
    if request["subtask"] == "semantic":
        (classes,) = rules(output, target_sizes=size)
        return [[names[int(label)], (classes == label).double().numpy()] for label in np.unique(classes.numpy())]
    known = inspect.signature(rules).parameters
    (found,) = rules(output, target_sizes=size, **{name: value for name, value in OPTIONS.items() if name in known})
    places = found["segmentation"]
    return [[names[part["label_id"]], (places == part["id"]).double().numpy()] for part in found["segments_info"]]


def answered(result: Any, request: dict[str, Any], index: int) -> Any:
    return [[each.label, mask(each.mask)] for each in result.results]
