"""Texts to the tokens of a model that speaks."""

from __future__ import annotations

import itertools
import re
import threading
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from modelport.contract import ConfigurationError, InputTooLong, InvalidRequest, SessionContext
from modelport_hf.folder import read_json
from modelport_skill_speech.synthesis import Kind

__all__ = ["Reader", "cut"]

_BORDERS = (re.compile(r"[.!?…]\s+|[。！？]\s*|\n+"), re.compile(r"[,;:،]\s+|[、，；：]\s*"), re.compile(r"\s+"))
"""Where a text may be cut: after a sentence, else after a part of one, else after a word."""


class Reader:
    """The tokenizer of a checkpoint, as its model wants it used.

    Args:
        context: The session's.
        kind: How the model speaks.
        config: Of the model, defaults included.

    Raises:
        ConfigurationError: if there is no tokenizer that can be loaded, or it needs a package that is not installed.
    """

    def __init__(self, context: SessionContext, kind: Kind, config: Mapping[str, Any]) -> None:
        self.tokenizer = _load(context)
        self._kind = kind
        self._type = context.card.model_type
        self._lock = threading.Lock()  # some tokenizers are set to a language for the length of a call
        self._padded = 0
        limits = [kind.longest, context.card.limit, int(self.tokenizer.model_max_length), config.get("max_text_positions")]
        if self._type == "bark":
            own = (read_json(context.folder, "generation_config.json") or {}).get("semantic_config") or {}
            self._padded = int(own.get("max_input_semantic_length", 256))
            limits.append(self._padded)
        self._longest = min(limit for limit in limits if limit)

    def read(self, text: str, voice: str, language: str | None) -> list[tuple[dict[str, np.ndarray], int]]:
        """The inputs of each part of a text, and its number of tokens. A text that fits is one part.

        Raises:
            InvalidRequest: if there is nothing in it that the model could say.
            InputTooLong: if it is too long and cannot be cut.
        """
        if not text.strip():
            raise InvalidRequest("inputs is empty; give a text to speak.", param="inputs")
        known: dict[str, list[int]] = {}

        def encode(part: str) -> list[int]:
            if part not in known:
                known[part] = self._encode(part, voice, language)
            return known[part]

        if not self._kind.cuts and len(encode(text)) > self._longest:
            raise InputTooLong(
                f"inputs has {len(encode(text))} tokens, and this model takes {self._longest}. Shorten it.", param="inputs"
            )
        encoded = [ids for part in cut(text, lambda part: len(encode(part)) <= self._longest) if (ids := encode(part))]
        if not encoded:
            raise InvalidRequest(
                "inputs has no character that this model reads; write it in the model's own script.", param="inputs"
            )
        return [(self._arrays(ids), len(ids)) for ids in encoded]

    def _encode(self, text: str, voice: str, language: str | None) -> list[int]:
        options: dict[str, Any] = {"verbose": False}
        if self._type == "bark":
            options["add_special_tokens"] = False
        if self._type.startswith("seamless"):
            options |= {"src_lang": language, "tgt_lang": language}
        with self._lock:
            if self._type == "csm":
                message = {"role": voice or "0", "content": [{"type": "text", "text": text}]}
                return list(self.tokenizer.apply_chat_template([message], tokenize=True, return_dict=True)["input_ids"])
            # The tokenizer of VITS drops what it does not know, and puts blanks around whatever is left.
            if self._type == "vits" and not self.tokenizer.prepare_for_tokenization(text)[0].strip():
                return []
            return list(self.tokenizer(text, **options)["input_ids"])

    def _arrays(self, ids: list[int]) -> dict[str, np.ndarray]:
        arrays: dict[str, np.ndarray] = {"input_ids": np.array(ids, np.int64)}
        if "attention_mask" in self._kind.inputs:
            arrays["attention_mask"] = np.ones(len(ids), np.int64)
        missing = max(self._padded - len(ids), 0)
        return {name: np.pad(array, (0, missing)) for name, array in arrays.items()} if missing else arrays


def cut(text: str, fits: Callable[[str], bool]) -> list[str]:
    """`text` in as few parts as fit, cut where a speaker would pause.

    Raises:
        InputTooLong: if a word of it does not fit.
    """
    return [stripped for part in _cut(text, fits, 0) if (stripped := part.strip())]


def _cut(text: str, fits: Callable[[str], bool], depth: int) -> list[str]:
    if fits(text.strip()):
        return [text]
    if depth == len(_BORDERS):
        raise InputTooLong(
            f"inputs has a stretch of {len(text)} characters without a space, too long for this model. Divide it.",
            param="inputs",
        )
    ends = [*(border.end() for border in _BORDERS[depth].finditer(text)), len(text)]
    parts: list[str] = []
    for start, end in itertools.pairwise([0, *ends]):
        piece = text[start:end]
        if parts and fits((parts[-1] + piece).strip()):
            parts[-1] += piece
        else:
            parts += _cut(piece, fits, depth + 1)
    return parts


def _load(context: SessionContext) -> Any:
    from transformers import AutoTokenizer

    folder, card = context.folder, context.card
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=card.trust_remote_code)
    except Exception as error:  # anything a damaged or foreign folder can cause
        if card.model_type.startswith("fastspeech2") and "g2p" in str(error):
            raise _package(card.name, "turns letters into phonemes", "g2p_en") from error
        why = " ".join(str(error).split())[:300].rstrip(".")
        raise ConfigurationError(f"The checkpoint in {folder} has no tokenizer that can be loaded: {why}.") from error
    if card.model_type == "csm" and not tokenizer.chat_template:
        raise ConfigurationError(
            f"The checkpoint in {folder} has no chat template, which says how a csm model is told who speaks. Fetch it again."
        )
    if card.model_type == "vits":
        from transformers.utils import is_phonemizer_available, is_uroman_available

        if getattr(tokenizer, "phonemize", False) and not is_phonemizer_available():
            raise _package(card.name, "turns letters into phonemes", "phonemizer", " It also needs the program espeak-ng.")
        if getattr(tokenizer, "is_uroman", False) and not is_uroman_available():
            raise _package(card.name, "writes every script in Latin letters", "uroman")
    return tokenizer


def _package(model: str, does: str, name: str, more: str = "") -> ConfigurationError:
    return ConfigurationError(
        f"The tokenizer of the model {model!r} {does} with the package {name}, which is not installed. "
        f"Try: pip install {name}{more}"
    )
