"""Texts to the ids of the tower that reads them."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from modelport.contract import ConfigurationError, InputTooLong, InvalidRequest, Item, SessionContext
from modelport_hf.folder import position_limit
from modelport_hf.tokenizer import load_tokenizer

__all__ = ["Texts", "WholeTexts", "nested_config"]

Side = Literal["left", "right"]


def nested_config(context: SessionContext, *names: str) -> dict[str, Any]:
    """The first of the parts `names` that the checkpoint's configuration has, with defaults that its config.json leaves out."""
    from transformers import AutoConfig

    whole = AutoConfig.from_pretrained(
        str(context.folder), local_files_only=True, trust_remote_code=context.card.trust_remote_code
    )
    part: dict[str, Any] = next(getattr(whole, name) for name in names if getattr(whole, name, None) is not None).to_dict()
    return part


class Texts:
    """One text is one item, as long as it is.

    Args:
        config: The configuration of the tower.
        is_masked: Whether the tower is told which tokens are padding.

    Attributes:
        pads: What pads a batch of items.
        limit: The most tokens that the tower takes, special ones included; None if unbounded.
    """

    pads: Mapping[str, int]

    def __init__(self, context: SessionContext, config: Mapping[str, Any], *, is_masked: bool = True) -> None:
        card = context.card
        self.tokenizer = load_tokenizer(context.folder, trust_remote_code=card.trust_remote_code)
        pad = self.tokenizer.id_of("pad_token")
        self.pads = {"input_ids": pad if pad is not None else (config.get("pad_token_id") or 0)}
        limits = (position_limit(config), self.tokenizer.model_max_length, context.limits.max_length if context.limits else None)
        self.limit = min((limit for limit in limits if limit is not None), default=None)
        self._is_masked = is_masked

    def item(self, text: str | list[int], param: str, *, truncate: bool = False, side: Side = "right") -> Item:
        """The item of a text, or of its ids.

        Raises:
            InvalidRequest: if the text is empty, or its ids are none of the model's.
            InputTooLong: if it is too long and is not to be cut.
        """
        _refuse_empty(text, param)
        if isinstance(text, list):
            self.tokenizer.check_ids(text, param)
            ids = text
        else:
            ids = self.tokenizer.encode(text).ids
        if self.limit is not None and len(ids) > self.limit:
            if not truncate:
                raise _too_long(len(ids), self.limit, param)
            if isinstance(text, list):
                ids = ids[: self.limit] if side == "right" else ids[-self.limit :]
            else:
                ids = self.tokenizer.encode(text, max_tokens=self.limit, side=side).ids
        array = np.array(ids, dtype=np.int64)
        arrays = {"input_ids": array} | ({"attention_mask": np.ones_like(array)} if self._is_masked else {})
        return Item({**arrays}, cost=len(ids))


class WholeTexts(Texts):
    """One text is one item, padded to the most tokens that the tower takes, by transformers' own tokenizer: SigLIP's texts are
    lower-cased and rid of punctuation by its Python code, and padded on the side that it says.

    Raises:
        ConfigurationError: if the tokenizer cannot be loaded.
    """

    def __init__(self, context: SessionContext, config: Mapping[str, Any], *, is_masked: bool = True) -> None:
        from transformers import AutoTokenizer

        try:
            self._own = AutoTokenizer.from_pretrained(
                str(context.folder), local_files_only=True, trust_remote_code=context.card.trust_remote_code
            )
        except (OSError, ValueError, ImportError, KeyError, TypeError, AttributeError) as error:
            why = " ".join(str(error).split())[:300].rstrip(".")
            raise ConfigurationError(f"The tokenizer of the model {context.card.name!r} cannot be loaded: {why}.") from error
        self._lock = threading.Lock()  # padding and truncation are states of the library's tokenizers
        self._is_masked = is_masked
        self.pads = {}
        self.limit = position_limit(config) or int(self._own.model_max_length)

    def item(self, text: str | list[int], param: str, *, truncate: bool = False, side: Side = "right") -> Item:
        assert self.limit is not None
        _refuse_empty(text, param)
        if isinstance(text, list):
            raise InvalidRequest("This model takes texts, and no token ids: they are padded in its own way.", param=param)
        with self._lock:
            self._own.truncation_side = side
            count = len(self._own(text).input_ids)
            if count > self.limit and not truncate:
                raise _too_long(count, self.limit, param)
            made = self._own(text, padding="max_length", max_length=self.limit, truncation=True, return_attention_mask=True)
        names = ("input_ids", "attention_mask") if self._is_masked else ("input_ids",)
        return Item({name: np.array(made[name], dtype=np.int64) for name in names}, cost=self.limit)


def _refuse_empty(text: str | list[int], param: str) -> None:
    if isinstance(text, str) and not text.strip():
        raise InvalidRequest("The text is empty; give at least one character that is not white space.", param=param)


def _too_long(count: int, limit: int, param: str) -> InputTooLong:
    return InputTooLong(f"The text has {count} tokens, and this model takes at most {limit}. Shorten it.", param=param)
