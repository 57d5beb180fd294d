"""Questions to spans of a text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from build import note_of
from text import TEXTS, read_tokenizer, tensors, write_tokenizer

SETTINGS: dict[str, Any] = {"decoder_start_token_id": 0}
LONGEST = 15
QUESTIONS = ("who?", "what is it", "where was that")


def equip(pair: Any, model: Any, folder: Path) -> Any:
    write_tokenizer(folder, encloses=True, pair=note_of(pair, "_pair"))
    return read_tokenizer(folder)


def requests(pair: Any, model: Any, tools: Any) -> list[dict[str, Any]]:
    return [
        {"inputs": {"question": question, "context": text}, "align_to_words": False}
        for question, text in zip(QUESTIONS, TEXTS, strict=True)
    ]


def merged(requests: list[dict[str, Any]]) -> dict[str, Any]:
    return {**requests[0], "inputs": [request["inputs"] for request in requests]}


def expected(model: Any, tools: Any, request: dict[str, Any]) -> Any:
    texts = request["inputs"]["question"], request["inputs"]["context"]
    told = tools(*texts, return_offsets_mapping=True)
    output = model(**tensors(model, tools, *texts))
    allowed = np.array([sequence == 1 for sequence in told.sequence_ids(0)])
    allowed[0] = True  # where a model points that finds no answer
    starts, ends = (
        np.where(allowed, np.exp(logits[0].double().numpy()), 0.0) for logits in (output.start_logits, output.end_logits)
    )
    scores = np.triu(np.outer(starts / starts.sum(), ends / ends.sum()))
    scores = np.tril(scores, LONGEST - 1)
    scores[0] = 0.0
    first, last = np.unravel_index(scores.argmax(), scores.shape)
    offsets = told["offset_mapping"]
    return [float(scores[first, last]), offsets[first][0], offsets[last][1]]


def answered(result: Any, request: dict[str, Any], index: int) -> Any:
    best = result.results[index][0]
    return [best.score, best.start, best.end]
