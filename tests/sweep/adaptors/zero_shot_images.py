"""Images to the scores of the request's own labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from images import media, opened, pictures, pixels, write_processor
from text import read_tokenizer, tensors, write_tokenizer

SETTINGS: dict[str, Any] = {"logit_scale_init_value": 0.5}
LABELS = ("cat~", "a big dog~", "nothing~")
"""CLIP, whose token for the end is number 2 here, takes the largest number for the end, which is that of the last character."""
TEMPLATE = "This is a photo of {}."
FILLED = ("siglip", "siglip2")
"""Types that were trained on texts that are all filled up to one length, which their processors tell by no mask."""


def equip(pair: Any, model: Any, folder: Path) -> Any:
    write_tokenizer(folder, encloses=True, masked=pair.model_type not in FILLED)
    return write_processor(pair, model, folder), read_tokenizer(folder)


def requests(pair: Any, model: Any, tools: Any) -> list[dict[str, Any]]:
    return [{"inputs": media(image), "candidate_labels": list(LABELS), "hypothesis_template": TEMPLATE} for image in pictures()]


def expected(model: Any, tools: Any, request: dict[str, Any]) -> Any:
    processor, tokenizer = tools
    kind = model.config.model_type
    seen = pixels(model, processor, opened(request["inputs"]))
    logits = []
    for label in LABELS:
        text = TEMPLATE.format(label)
        if kind in FILLED:
            length = model.config.text_config.max_position_embeddings
            read = {"input_ids": tokenizer(text, padding="max_length", max_length=length, return_tensors="pt")["input_ids"]}
        else:
            read = tensors(model, tokenizer, text)
        logits.append(float(model(**seen, **read).logits_per_image[0, 0]))
    scores = 1 / (1 + np.exp(-np.array(logits))) if kind in FILLED else np.exp(logits) / np.exp(logits).sum()
    return dict(zip(LABELS, map(float, scores), strict=True))


def answered(result: Any, request: dict[str, Any], index: int) -> Any:
    return {each.label: each.score for each in result.results}
