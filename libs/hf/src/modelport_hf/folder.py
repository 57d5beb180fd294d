"""Small JSON files of a checkpoint's folder. Imports nothing heavy, so skills use it in `claim` and `programs` too."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modelport.contract.card import ModelCard
from modelport.contract.errors import ConfigurationError

__all__ = ["has_tokenizer", "label_names", "position_limit", "read_json", "takes_type_ids"]

_TOKENIZER_FILES = frozenset(
    {
        "tokenizer.json",
        "tokenizer_config.json",
        "vocab.txt",
        "vocab.json",
        "spiece.model",
        "sentencepiece.bpe.model",
        "tokenizer.model",
        "tekken.json",
    }
)

_POSITIONS_AFTER_PADDING = frozenset(
    {
        "roberta",
        "xlm-roberta",
        "xlm-roberta-xl",
        "camembert",
        "roberta-prelayernorm",
        "xmod",
        "data2vec-text",
        "mpnet",
        "longformer",
        "esm",
        "layoutlmv3",
        "altclip_text_model",
    }
)
"""Model types that number positions from `pad_token_id + 1`, so their tables hold fewer tokens than they have rows."""


def read_json(folder: Path, name: str) -> Any:
    """The content of a JSON file of a checkpoint, or None if there is no such file.

    Raises:
        ConfigurationError: if the file is there and is not JSON.
    """
    path = folder / name
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ConfigurationError(
            f"{path} is not valid JSON ({error}). The checkpoint is damaged: fetch it again, or repair the file."
        ) from error


def has_tokenizer(files: tuple[str, ...]) -> bool:
    """Whether the files of a checkpoint hold a tokenizer of text."""
    return not _TOKENIZER_FILES.isdisjoint(files)


def position_limit(config: Mapping[str, Any]) -> int | None:
    """The most tokens that the position table of a model takes, or None if its config.json does not say."""
    rows = config.get("max_position_embeddings")
    if not isinstance(rows, int) or rows <= 0:
        return None
    if config.get("model_type") in _POSITIONS_AFTER_PADDING:
        padding = config.get("pad_token_id")
        return rows - (padding if isinstance(padding, int) else 1) - 1
    return rows


def label_names(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The labels of a classification head, by index: `id2label`, or `LABEL_i` as transformers calls unnamed ones."""
    names = config.get("id2label")
    if isinstance(names, Mapping) and names:
        by_index = {int(index): str(name) for index, name in names.items()}
        return tuple(by_index.get(index, f"LABEL_{index}") for index in range(max(by_index) + 1))
    count = config.get("num_labels")
    return tuple(f"LABEL_{index}" for index in range(count if isinstance(count, int) and count > 0 else 2))


def takes_type_ids(card: ModelCard) -> bool:
    """Whether a model is to be told which text of a pair each token belongs to."""
    types = card.config.get("type_vocab_size")
    if not isinstance(types, int) or types < 2:
        return False
    try:
        names = (read_json(Path(card.path), "tokenizer_config.json") or {}).get("model_input_names") if card.path else None
    except ConfigurationError:
        return True  # the session will say what is wrong with the file
    return names is None or "token_type_ids" in names
