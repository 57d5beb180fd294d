"""Sounds to the scores of labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from labels import LABELS, THREE
from sounds import features, heard, media, sounds, write_extractor

SETTINGS: dict[str, Any] = {**THREE, "layerdrop": 0.0}


def equip(pair: Any, model: Any, folder: Path) -> Any:
    return write_extractor(pair, model, folder)


def requests(pair: Any, model: Any, tools: Any) -> list[dict[str, Any]]:
    return [{"inputs": media(sound), "function_to_apply": "none"} for sound in sounds()]


def expected(model: Any, tools: Any, request: dict[str, Any]) -> Any:
    logits = model(**features(model, tools, heard(request["inputs"]))).logits[0].float().numpy()
    return {"label": model.config.id2label[int(logits.argmax())], "logits": logits}


def answered(result: Any, request: dict[str, Any], index: int) -> Any:
    labels = {each.label: each.score for each in result.results}
    return {"label": result.results[0].label, "logits": np.array([labels[name] for name in LABELS])}
