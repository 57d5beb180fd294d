"""Images to the logits of labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from images import media, opened, pictures, pixels, write_processor
from labels import LABELS, THREE

SETTINGS: dict[str, Any] = THREE


def equip(pair: Any, model: Any, folder: Path) -> Any:
    return write_processor(pair, model, folder)


def requests(pair: Any, model: Any, tools: Any) -> list[dict[str, Any]]:
    return [{"inputs": media(image), "function_to_apply": "none"} for image in pictures()]


def expected(model: Any, tools: Any, request: dict[str, Any]) -> Any:
    output = model(**pixels(model, tools, opened(request["inputs"])))
    logits = output["logits" if "logits" in output else "last_hidden_state"][0].float().numpy()  # as PP-LCNet calls them
    return {"label": model.config.id2label[int(logits.argmax())], "logits": logits}


def answered(result: Any, request: dict[str, Any], index: int) -> Any:
    labels = {each.label: each.score for each in result.results}
    return {"label": result.results[0].label, "logits": np.array([labels[name] for name in LABELS])}
