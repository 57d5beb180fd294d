"""What the three sessions share: the tokenizer, the limit, and items."""

from __future__ import annotations

from typing import Any

import numpy as np

from modelport.contract import InputTooLong, InvalidRequest, Item, Session, SessionContext
from modelport_hf.folder import position_limit
from modelport_hf.padding import length_group
from modelport_hf.tokenizer import load_tokenizer

__all__ = ["TextSession", "texts_of"]


class TextSession(Session):
    """A session over one tokenizer.

    Attributes:
        limit: The most tokens that the model takes, special ones included; None if unbounded.
    """

    def __init__(self, context: SessionContext) -> None:
        super().__init__(context)
        card = context.card
        self.tokenizer = load_tokenizer(context.folder, trust_remote_code=card.trust_remote_code)
        pad = self.tokenizer.id_of("pad_token")
        self.pads = {"input_ids": pad if pad is not None else (card.config.get("pad_token_id") or 0)}
        limits = (
            card.limit,
            position_limit(card.config),
            self.tokenizer.model_max_length,
            context.limits.max_length if context.limits else None,
        )
        self.limit = min((limit for limit in limits if limit is not None), default=None)
        assert context.program is not None
        self._typed = any(spec.name == "token_type_ids" for spec in context.program.entries["main"].inputs)

    def item(self, encoding: Any, **more: np.ndarray) -> Item:
        """An item of a tokenizer's encoding."""
        ids = np.array(encoding.ids, dtype=np.int64)
        arrays: dict[str, Any] = {"input_ids": ids, "attention_mask": np.ones_like(ids), **more}
        if self._typed:
            arrays["token_type_ids"] = np.array(encoding.type_ids, dtype=np.int64)
        return Item(arrays, cost=len(ids), group=length_group(self.context.card, len(ids)))

    def too_long(self, count: int, param: str, advice: str) -> InputTooLong:
        """The refusal of an input of `count` tokens."""
        return InputTooLong(f"The input has {count} tokens, and this model takes at most {self.limit}. {advice}", param=param)


def texts_of(inputs: str | list[str]) -> list[tuple[str, str]]:
    """Each text with the name of its field.

    Raises:
        InvalidRequest: there is none, or one is empty.
    """
    texts = [(inputs, "inputs")] if isinstance(inputs, str) else [(text, f"inputs.{i}") for i, text in enumerate(inputs)]
    if not texts:
        raise InvalidRequest("inputs is empty; give at least one text.", param="inputs")
    for text, param in texts:
        if not text.strip():
            raise InvalidRequest("The text is empty; give at least one character that is not white space.", param=param)
    return texts
