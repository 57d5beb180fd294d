"""Questions about images: to the best three answers, or to the one that a model writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from adaptors import image_text_to_text
from images import media, opened, pictures, pixels, write_processor
from labels import THREE
from text import TEXTS, read_tokenizer, tensors, write_tokenizer

WRITERS = {"blip": "{}", "blip-2": "Question: {} Answer:"}
"""Types that write their answers, and how they are asked."""
NEW = 8


def settings(pair: Any) -> dict[str, Any]:
    if pair.model_type in WRITERS:
        return image_text_to_text.settings(pair)
    return {**THREE, "decoder_start_token_id": 1}


def equip(pair: Any, model: Any, folder: Path) -> Any:
    if pair.model_type in WRITERS:
        model.generation_config.max_new_tokens = NEW
        return image_text_to_text.equip(pair, model, folder)
    write_tokenizer(folder, encloses=True)
    return write_processor(pair, model, folder), read_tokenizer(folder)


def requests(pair: Any, model: Any, tools: Any) -> list[dict[str, Any]]:
    top = {} if pair.model_type in WRITERS else {"top_k": 3}
    return [{"image": media(image), "question": text, **top} for image, text in zip(pictures(), TEXTS, strict=True)]


def expected(model: Any, tools: Any, request: dict[str, Any]) -> Any:
    image = opened(request["image"])
    if model.config.model_type in WRITERS:
        text = WRITERS[model.config.model_type].format(request["question"])
        inputs = tools(images=image, text=text, return_tensors="pt")
        made = model.generate(**inputs, max_new_tokens=NEW)[0]
        begin = inputs["input_ids"].shape[1] if model.config.model_type == "blip-2" else 0
        return {tools.tokenizer.decode(made[begin:], skip_special_tokens=True).strip(): None}
    processor, tokenizer = tools
    logits = model(**pixels(model, processor, image), **tensors(model, tokenizer, request["question"])).logits[0].float()
    return {model.config.id2label[n]: float(score) for n, score in enumerate(logits.sigmoid())}


def answered(result: Any, request: dict[str, Any], index: int) -> Any:
    return {each.answer: each.score for each in result.results}
