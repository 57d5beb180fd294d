"""Questions about a page, whose words and their boxes are given, to words of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from build import CannotBuild
from images import media, opened, pictures, pixels, write_processor
from text import read_tokenizer, write_tokenizer

SETTINGS: dict[str, Any] = {"max_2d_position_embeddings": 1024}
WORDS = (["good", "cat"], ["this", "is", "a", "bad", "day"], ["you", "have", "two", "dogs", "and", "they", "bark"])
QUESTION = "what is it"


def equip(pair: Any, model: Any, folder: Path) -> Any:
    from transformers import pipeline

    if not hasattr(model, "qa_outputs"):
        raise CannotBuild(f"the sweep does not ask {pair.model_type} yet")
    write_tokenizer(folder, encloses=True)
    tokenizer = read_tokenizer(folder)
    eyes = {"image_processor": write_processor(pair, model, folder)} if pair.model_type != "layoutlm" else {}
    if pair.model_type == "layoutlmv3":
        return eyes["image_processor"], tokenizer
    return pipeline("document-question-answering", model=model, tokenizer=tokenizer, **eyes)


def requests(pair: Any, model: Any, tools: Any) -> list[dict[str, Any]]:
    return [
        {
            "image": media(image),
            "question": QUESTION,
            "words": words,
            "boxes": [[5 * n + 1, 10, 5 * n + 5, 20] for n in range(len(words))],
        }
        for image, words in zip(pictures(), WORDS, strict=True)
    ]


def expected(model: Any, tools: Any, request: dict[str, Any]) -> Any:
    image = opened(request["image"])
    sides = (image.width, image.height) * 2
    boxes = [[int(1000 * at / side) for at, side in zip(box, sides, strict=True)] for box in request["boxes"]]
    if isinstance(tools, tuple):
        return _with_image(model, *tools, image, request, boxes)
    words = list(zip(request["words"], boxes, strict=True))
    found = tools(image=image, question=request["question"], word_boxes=words)
    best = found[0] if isinstance(found, list) else found
    return [best["answer"], float(best["score"]), best["start"], best["end"]]


def _with_image(model: Any, processor: Any, tokenizer: Any, image: Any, request: dict[str, Any], boxes: list[list[int]]) -> Any:
    """The pipeline hands boxes to a tokenizer of the family's own; this is what that makes of them."""
    import torch
    from transformers.pipelines.document_question_answering import select_starts_ends

    read = tokenizer(request["question"].split(), request["words"], is_split_into_words=True)
    ids, parts, words = read["input_ids"], read.sequence_ids(0), read.word_ids(0)
    places = [boxes[word] if part == 1 else [0] * 4 for part, word in zip(parts, words, strict=True)]
    given = {"input_ids": torch.tensor([ids]), "bbox": torch.tensor([places])}
    output = model(**given, **pixels(model, processor, image))
    first, last = (logits.numpy()[:, : len(ids)] for logits in (output.start_logits, output.end_logits))
    outside = np.array([part != 1 for part in parts])
    outside[0] = False  # as the pipeline has it
    starts, ends, scores, _ = select_starts_ends(first, last, outside, np.ones((1, len(ids)), int), top_k=1, max_answer_len=15)
    start, end = words[int(starts[0])], words[int(ends[0])]
    return [" ".join(request["words"][start : end + 1]), float(scores[0]), start, end]


def answered(result: Any, request: dict[str, Any], index: int) -> Any:
    best = result.results[0]
    return [best.answer, best.score, best.start, best.end]
