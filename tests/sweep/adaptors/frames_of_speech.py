"""Speech to the likeliest letter of each frame, and these to a text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sounds import features, heard, media, sounds, write_extractor

LETTERS = ["<pad>", "<s>", "</s>", "<unk>", "|", *"abcdefghijklmnopqrstuvwxyz'"]
SETTINGS: dict[str, Any] = {"vocab_size": len(LETTERS), "pad_token_id": 0, "layerdrop": 0.0}


def equip(pair: Any, model: Any, folder: Path) -> Any:
    from transformers import Wav2Vec2CTCTokenizer

    extractor = write_extractor(pair, model, folder)
    (folder / "vocab.json").write_text(json.dumps({letter: at for at, letter in enumerate(LETTERS)}))
    tokenizer = Wav2Vec2CTCTokenizer(str(folder / "vocab.json"))
    tokenizer.save_pretrained(folder)
    return extractor, tokenizer


def requests(pair: Any, model: Any, tools: Any) -> list[dict[str, Any]]:
    return [{"inputs": media(sound)} for sound in sounds()]


def expected(model: Any, tools: Any, request: dict[str, Any]) -> Any:
    extractor, tokenizer = tools
    logits = model(**features(model, extractor, heard(request["inputs"]))).logits[0]
    return tokenizer.decode(logits.argmax(-1))


def answered(result: Any, request: dict[str, Any], index: int) -> Any:
    return result.text
