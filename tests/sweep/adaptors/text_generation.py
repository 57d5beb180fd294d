"""Texts, continued greedily."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from adaptors import image_text_to_text
from text import TEXTS, read_tokenizer, write_tokenizer

NEW = 8


def settings(pair: Any) -> dict[str, Any]:
    return image_text_to_text.settings(pair) if _sees(pair) else {"is_decoder": True}


def equip(pair: Any, model: Any, folder: Path) -> Any:
    if _sees(pair):
        return image_text_to_text.equip(pair, model, folder).tokenizer
    write_tokenizer(folder, encloses=False)
    return read_tokenizer(folder)


def requests(pair: Any, model: Any, tools: Any) -> list[dict[str, Any]]:
    return [{"prompt": text, "max_new_tokens": NEW, "do_sample": False} for text in TEXTS]


def expected(model: Any, tools: Any, request: dict[str, Any]) -> Any:
    ids = tools(request["prompt"], return_tensors="pt")
    made = model.generate(
        input_ids=ids["input_ids"], attention_mask=ids["attention_mask"], max_new_tokens=NEW, do_sample=False, pad_token_id=0
    )
    return tools.decode(made[0, ids["input_ids"].shape[1] :], skip_special_tokens=True)


def answered(result: Any, request: dict[str, Any], index: int) -> Any:
    return result.choices[0].text


def _sees(pair: Any) -> bool:
    """Whether the model takes images too, and so has a processor."""
    return pair.architectures[0].endswith("ForConditionalGeneration") and pair.model_type in image_text_to_text.RECIPES
