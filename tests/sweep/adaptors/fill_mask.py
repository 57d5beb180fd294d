"""Masked tokens to what could stand there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from text import read_tokenizer, tensors, write_tokenizer

SETTINGS: dict[str, Any] = {}
TEXTS = ("a <mask>", "this is a <mask>ad day", "you have a cat, <mask>nd they had two dogs.")


def equip(pair: Any, model: Any, folder: Path) -> Any:
    write_tokenizer(folder, encloses=True)
    return read_tokenizer(folder)


def requests(pair: Any, model: Any, tools: Any) -> list[dict[str, Any]]:
    return [{"inputs": text, "top_k": 3} for text in TEXTS]


def merged(requests: list[dict[str, Any]]) -> dict[str, Any]:
    return {**requests[0], "inputs": [request["inputs"] for request in requests]}


def expected(model: Any, tools: Any, request: dict[str, Any]) -> Any:
    inputs = tensors(model, tools, request["inputs"])
    logits = model(**inputs).logits[0].float()
    place = int((inputs["input_ids"][0] == tools.mask_token_id).nonzero()[0])
    best = logits[place].softmax(-1).topk(3)
    return [[float(score), int(token)] for score, token in zip(best.values, best.indices, strict=True)]


def answered(result: Any, request: dict[str, Any], index: int) -> Any:
    return [[each.score, each.token] for each in result.results[index][0]]
