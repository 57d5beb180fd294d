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
    if pair.model_type not in ("owlvit", "owlv2", "grounding-dino", "mm-grounding-dino"):
        raise CannotBuild(f"the sweep does not ask {pair.model_type} yet")
    write_tokenizer(folder, encloses=True)
    return write_processor(pair, model, folder), read_tokenizer(folder)


def requests(pair: Any, model: Any, tools: Any) -> list[dict[str, Any]]:
    return [{"inputs": media(image), "candidate_labels": list(LABELS), "threshold": 0.0} for image in pictures()]


def expected(model: Any, tools: Any, request: dict[str, Any]) -> Any:
    processor, tokenizer = tools
    image = opened(request["inputs"])
    if model.config.model_type.endswith("grounding-dino"):
        return _phrases(model, processor, tokenizer, image)
    length = model.config.text_config.max_position_embeddings
    texts = tokenizer(list(LABELS), padding="max_length", max_length=length, return_tensors="pt")
    read = {name: texts[name] for name in ("input_ids", "attention_mask")}
    output = model(**pixels(model, processor, image), **read)
    (found,) = processor.post_process_object_detection(output, threshold=0.0, target_sizes=[(image.height, image.width)])
    best = np.argsort(-found["scores"].numpy(), kind="stable")[:MOST]
    return [
        [LABELS[int(found["labels"][n])], float(found["scores"][n]), found["boxes"][n].numpy().astype(int) + 100.0] for n in best
    ]


def _phrases(model: Any, processor: Any, tokenizer: Any, image: Any) -> Any:
    """All labels are one caption; an object has the label whose likeliest letter is the likeliest."""
    texts = tokenizer([". ".join(LABELS) + "."], return_tensors="pt", return_offsets_mapping=True)
    offsets = texts.pop("offset_mapping")[0].tolist()
    output = model(**texts, **pixels(model, processor, image))
    likeness = output.logits[0].sigmoid().numpy()
    starts = np.cumsum([0, *(len(label) + 2 for label in LABELS)])
    sides = np.array([image.width, image.height] * 2)
    found = []
    for n in np.argsort(-likeness.max(-1), kind="stable")[:MOST]:
        of_label = [
            max(likeness[n][at] for at, (begin, end) in enumerate(offsets) if start <= begin < end <= start + len(label))
            for start, label in zip(starts, LABELS, strict=False)
        ]
        x, y, width, height = output.pred_boxes[0, n].double().numpy()
        box = np.array([x - width / 2, y - height / 2, x + width / 2, y + height / 2]) * sides
        found.append([LABELS[int(np.argmax(of_label))], float(likeness[n].max()), box.astype(int) + 100.0])
    return found


def answered(result: Any, request: dict[str, Any], index: int) -> Any:
    return [
        [each.label, each.score, np.array([each.box.xmin, each.box.ymin, each.box.xmax, each.box.ymax]) + 100.0]
        for each in result.results[:MOST]
    ]
