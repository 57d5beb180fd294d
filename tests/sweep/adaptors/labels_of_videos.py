"""Videos to the logits of labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from images import SIZES, media, opened, picture, pixels, write_processor
from labels import LABELS, THREE

SETTINGS: dict[str, Any] = THREE


def equip(pair: Any, model: Any, folder: Path) -> Any:
    return write_processor(pair, model, folder)


def requests(pair: Any, model: Any, tools: Any) -> list[dict[str, Any]]:
    frames = getattr(model.config, "num_frames", None) or getattr(model.config, "frames_per_clip", 4)
    return [
        {"inputs": [media(picture(10 * n + frame, *size)) for frame in range(frames)], "function_to_apply": "none"}
        for n, size in enumerate(SIZES)
    ]


def expected(model: Any, tools: Any, request: dict[str, Any]) -> Any:
    logits = model(**pixels(model, tools, [opened(frame) for frame in request["inputs"]])).logits[0].float().numpy()
    return {"label": model.config.id2label[int(logits.argmax())], "logits": logits}


def answered(result: Any, request: dict[str, Any], index: int) -> Any:
    labels = {each.label: each.score for each in result.results}
    return {"label": result.results[0].label, "logits": np.array([labels[name] for name in LABELS])}
