"""Tokens of texts to labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from labels import THREE
from text import TEXTS, read_tokenizer, tensors, write_tokenizer

SETTINGS: dict[str, Any] = {**THREE, "decoder_start_token_id": 0}


def equip(pair: Any, model: Any, folder: Path) -> Any:
    write_tokenizer(folder, encloses=True)
    return read_tokenizer(folder)


def requests(pair: Any, model: Any, tools: Any) -> list[dict[str, Any]]:
    return [{"inputs": text} for text in TEXTS]


def merged(requests: list[dict[str, Any]]) -> dict[str, Any]:
    return {"inputs": [request["inputs"] for request in requests]}


def expected(model: Any, tools: Any, request: dict[str, Any]) -> Any:
    told = tools(request["inputs"], return_offsets_mapping=True, return_special_tokens_mask=True)
    scores = model(**tensors(model, tools, request["inputs"])).logits[0].float().softmax(-1)
    places = [place for place, special in enumerate(told["special_tokens_mask"]) if not special]
    return [
        [model.config.id2label[int(scores[place].argmax())], float(scores[place].max()), *told["offset_mapping"][place]]
        for place in places
    ]


def answered(result: Any, request: dict[str, Any], index: int) -> Any:
    return [[each.entity, each.score, each.start, each.end] for each in result.results[index]]
