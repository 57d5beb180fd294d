"""Questions about images to the best three answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from build import CannotBuild
from images import media, opened, pictures, pixels, write_processor
from labels import THREE
from text import TEXTS, read_tokenizer, tensors, write_tokenizer

SETTINGS: dict[str, Any] = {**THREE, "decoder_start_token_id": 1}


def equip(pair: Any, model: Any, folder: Path) -> Any:
    if not hasattr(model, "classifier"):
        raise CannotBuild(f"the sweep does not ask {pair.model_type}, which writes its answers, yet")
    write_tokenizer(folder, encloses=True)
    return write_processor(pair, model, folder), read_tokenizer(folder)


def requests(pair: Any, model: Any, tools: Any) -> list[dict[str, Any]]:
    return [{"image": media(image), "question": text, "top_k": 3} for image, text in zip(pictures(), TEXTS, strict=True)]


def expected(model: Any, tools: Any, request: dict[str, Any]) -> Any:
    processor, tokenizer = tools
    seen = pixels(model, processor, opened(request["image"]))
    logits = model(**seen, **tensors(model, tokenizer, request["question"])).logits[0].float()
    return {model.config.id2label[n]: float(score) for n, score in enumerate(logits.sigmoid())}


def answered(result: Any, request: dict[str, Any], index: int) -> Any:
    return {each.answer: each.score for each in result.results}
