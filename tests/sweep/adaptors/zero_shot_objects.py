"""Images to the best three objects of the request's own labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from build import CannotBuild
from images import media, opened, pictures, pixels, write_processor
from text import read_tokenizer, write_tokenizer

SETTINGS: dict[str, Any] = {}
LABELS = ("cat~", "a big dog~", "cow~")
"""The largest number of a text is taken for its end, as by CLIP."""
MOST = 3


def equip(pair: Any, model: Any, folder: Path) -> Any:
    if not pair.model_type.startswith("owl"):
        raise CannotBuild(f"the sweep does not ask {pair.model_type}, which finds phrases, yet")
    write_tokenizer(folder, encloses=True)
    return write_processor(pair, model, folder), read_tokenizer(folder)


def requests(pair: Any, model: Any, tools: Any) -> list[dict[str, Any]]:
    return [{"inputs": media(image), "candidate_labels": list(LABELS), "threshold": 0.0} for image in pictures()]


def expected(model: Any, tools: Any, request: dict[str, Any]) -> Any:
    processor, tokenizer = tools
    image = opened(request["inputs"])
    length = model.config.text_config.max_position_embeddings
    texts = tokenizer(list(LABELS), padding="max_length", max_length=length, return_tensors="pt")
    read = {name: texts[name] for name in ("input_ids", "attention_mask")}
    output = model(**pixels(model, processor, image), **read)
    (found,) = processor.post_process_object_detection(output, threshold=0.0, target_sizes=[(image.height, image.width)])
    best = np.argsort(-found["scores"].numpy(), kind="stable")[:MOST]
    return [
        [LABELS[int(found["labels"][n])], float(found["scores"][n]), found["boxes"][n].numpy().astype(int) + 100.0] for n in best
    ]


def answered(result: Any, request: dict[str, Any], index: int) -> Any:
    return [
        [each.label, each.score, np.array([each.box.xmin, each.box.ymin, each.box.xmax, each.box.ymax]) + 100.0]
        for each in result.results[:MOST]
    ]
