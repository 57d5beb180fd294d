"""What a checkpoint must be told of languages and tasks: a prefix of the text, marks around it, the first token of the answer.

Models do it in four ways, each known from the checkpoint's own files: prefixes for each pair in `task_specific_params` (T5), a
mark of the target before the text (Marian's models of several targets), a tokenizer that marks the source and a first token for
the target (mBART, M2M100, NLLB), or not at all.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from modelport.contract import InvalidRequest

__all__ = ["Languages", "Telling"]


class Telling(msgspec.Struct, frozen=True):
    """How one request is told to the model: what goes before each text, the source language to set in the tokenizer, and the
    token that the answer starts with."""

    prefix: str = ""
    source: str | None = None
    first: int | None = None


class Languages:
    """Of one checkpoint.

    Args:
        tokenizer: transformers' own.
        config: config.json.
    """

    def __init__(self, tokenizer: Any, config: Mapping[str, Any]) -> None:
        self._prefixes = {name: str(own.get("prefix") or "") for name, own in (config.get("task_specific_params") or {}).items()}
        self._tokenizer = tokenizer
        marks = getattr(tokenizer, "supported_language_codes", None) or []
        self._marks = [str(mark).strip("><") for mark in marks]
        self._ids = _ids(tokenizer)

    def tell(self, task: str, source: str | None, target: str | None) -> Telling:
        """How `task` is told to the model.

        Raises:
            InvalidRequest: if a language is unknown, or is needed and missing; the message names those that there are.
        """
        if task != "translation":
            return Telling(self._prefixes.get(task, ""))
        pairs = sorted(name for name in self._prefixes if name.startswith("translation_"))
        if pairs:
            return Telling(self._prefixes[self._pair(pairs, source, target)])
        if self._ids:
            return self._marked(source, target)
        if self._marks:
            if target is None:
                raise _missing("tgt_lang", self._marks)
            return Telling(f">>{_known('tgt_lang', target, self._marks)}<< ")
        for name, value in (("src_lang", source), ("tgt_lang", target)):
            if value is not None:
                raise InvalidRequest(
                    f"{name} is {value!r}, and this model translates one pair of languages only. Leave it out.", param=name
                )
        return Telling(self._prefixes.get(task, ""))

    def _pair(self, pairs: list[str], source: str | None, target: str | None) -> str:
        fitting = [
            name
            for name in pairs
            for one, other in [name.removeprefix("translation_").split("_to_", 1)]
            if source in (None, one) and target in (None, other)
        ]
        if len(fitting) == 1:
            return fitting[0]
        there_are = ", ".join(name.removeprefix("translation_").replace("_to_", " to ") for name in pairs)
        asked = f"{source or 'any language'} to {target or 'any language'} is {'not one pair' if fitting else 'no pair'}"
        raise InvalidRequest(
            f"{asked} of this model's. It translates {there_are}: set src_lang and tgt_lang.",
            param="tgt_lang" if target is None or source is not None else "src_lang",
        )

    def _marked(self, source: str | None, target: str | None) -> Telling:
        if source is not None:
            _known("src_lang", source, self._ids)
        if target is None:
            own = getattr(self._tokenizer, "tgt_lang", None)
            if own not in self._ids:
                raise _missing("tgt_lang", self._ids)
            target = own
        return Telling(source=source, first=self._ids[_known("tgt_lang", target, self._ids)])


def _ids(tokenizer: Any) -> dict[str, int]:
    """Language → the token that stands for it, of tokenizers that mark the source."""
    if not hasattr(tokenizer, "src_lang"):
        return {}
    if hasattr(tokenizer, "lang_code_to_id"):
        return dict(tokenizer.lang_code_to_id)
    if hasattr(tokenizer, "get_lang_id"):
        return {code: tokenizer.get_lang_id(code) for code in tokenizer.lang_code_to_token}
    added = getattr(tokenizer, "extra_special_tokens", None) or getattr(tokenizer, "additional_special_tokens", None) or []
    return {str(token): tokenizer.convert_tokens_to_ids(str(token)) for token in added}


def _known(name: str, language: str, known: Iterable[str]) -> str:
    if language in known:
        return language
    near = difflib.get_close_matches(language, list(known), 3, 0.3) or sorted(known)[:5]
    raise InvalidRequest(
        f"{name} is {language!r}, which this model does not know. Languages that it knows: {', '.join(near)}.", param=name
    )


def _missing(name: str, known: Iterable[str]) -> InvalidRequest:
    some = ", ".join(sorted(known)[:8])
    return InvalidRequest(f"{name} is missing: this model translates into several languages, such as {some}.", param=name)
