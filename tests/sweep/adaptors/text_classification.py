"""Texts to the logits of labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from labels import LABELS, THREE
from text import TEXTS, read_tokenizer, tensors, write_tokenizer

SETTINGS: dict[str, Any] = {**THREE, "decoder_start_token_id": 0}


def equip(pair: Any, model: Any, folder: Path) -> Any:
    write_tokenizer(folder, encloses=True)
    return read_tokenizer(folder)


def requests(pair: Any, model: Any, tools: Any) -> list[dict[str, Any]]:
    return [{"inputs": text, "function_to_apply": "none"} for text in TEXTS]


def merged(requests: list[dict[str, Any]]) -> dict[str, Any]:
    return {**requests[0], "inputs": [request["inputs"] for request in requests]}


def expected(model: Any, tools: Any, request: dict[str, Any]) -> Any:
    logits = model(**tensors(model, tools, request["inputs"])).logits[0].float().numpy()
    return {"label": model.config.id2label[int(logits.argmax())], "logits": logits}


def answered(result: Any, request: dict[str, Any], index: int) -> Any:
    labels = {each.label: each.score for each in result.results[index]}
    return {"label": result.results[index][0].label, "logits": np.array([labels[name] for name in LABELS])}
