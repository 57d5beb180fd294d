"""Texts to the mean of their tokens' states."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from text import TEXTS, read_tokenizer, tensors, write_tokenizer

SETTINGS: dict[str, Any] = {}


def equip(pair: Any, model: Any, folder: Path) -> Any:
    write_tokenizer(folder, encloses=True)
    return read_tokenizer(folder)


def requests(pair: Any, model: Any, tools: Any) -> list[dict[str, Any]]:
    return [{"inputs": text} for text in TEXTS]


def merged(requests: list[dict[str, Any]]) -> dict[str, Any]:
    return {"inputs": [request["inputs"] for request in requests]}


def expected(model: Any, tools: Any, request: dict[str, Any]) -> Any:
    return model(**tensors(model, tools, request["inputs"])).last_hidden_state[0].float().mean(0).numpy()


def answered(result: Any, request: dict[str, Any], index: int) -> Any:
    return result.embeddings[index]
