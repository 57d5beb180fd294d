"""Texts to ids, and pooled states to embeddings."""

from __future__ import annotations

from typing import Any

import numpy as np

from modelport.contract import Array, InputTooLong, InvalidRequest, Item, Session, SessionContext, UnsupportedParameter, to_numpy
from modelport.tasks.text import EmbeddingRequest, EmbeddingResult
from modelport_hf.folder import position_limit
from modelport_hf.padding import length_group
from modelport_hf.tokenizer import Encoded, load_tokenizer
from modelport_skill_text_embedding.recipe import recipe_of

__all__ = ["EmbeddingSession"]


class EmbeddingSession(Session):
    """One text, or list of token ids, is one item; the last normalisation is done here, since a request may choose it."""

    def __init__(self, context: SessionContext) -> None:
        super().__init__(context)
        card = context.card
        self.recipe = recipe_of(card)
        self.tokenizer = load_tokenizer(context.folder, trust_remote_code=card.trust_remote_code)
        pad = self.tokenizer.id_of("pad_token")
        self.pads = {"input_ids": pad if pad is not None else (card.config.get("pad_token_id") or 0)}
        limits = (
            card.limit,
            position_limit(card.config),
            self.tokenizer.model_max_length,
            self.recipe.max_length,
            context.limits.max_length if context.limits else None,
        )
        self.limit = min((limit for limit in limits if limit is not None), default=None)
        assert context.program is not None
        self._typed = any(spec.name == "token_type_ids" for spec in context.program.entries["main"].inputs)

    def preprocess(self, request: EmbeddingRequest) -> list[Item]:
        texts = _inputs(request)
        if request.dimensions is not None and request.dimensions < 1:
            raise InvalidRequest(f"dimensions is {request.dimensions}; it must be at least 1.", param="dimensions")
        prompt = self._prompt(request)
        single = isinstance(request.inputs, str) or texts is not request.inputs
        items = []
        for index, text in enumerate(texts):
            param = "inputs" if single else f"inputs.{index}"
            encoded = self._encode_ids(text, param) if isinstance(text, list) else self._encode(text, prompt, param)
            items.append(self._item(self._fit(encoded, text, prompt, request, param)))
        return items

    def postprocess(self, request: EmbeddingRequest, outputs: list[dict[str, Array]]) -> EmbeddingResult:
        vectors = np.stack([to_numpy(output["embedding"]) for output in outputs]).astype(np.float32, copy=False)
        if request.dimensions is not None:
            if request.dimensions > vectors.shape[1]:
                raise InvalidRequest(
                    f"dimensions is {request.dimensions}, and this model's embeddings have {vectors.shape[1]}.",
                    param="dimensions",
                )
            vectors = vectors[:, : request.dimensions]
        if self.recipe.normalize if request.normalize is None else request.normalize:
            vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        return EmbeddingResult(embeddings=np.ascontiguousarray(vectors))

    def _prompt(self, request: EmbeddingRequest) -> str:
        name = request.prompt_name
        if name is None:
            name = self.recipe.default_prompt
            return self.recipe.prompts.get(name, "") if name else ""
        if name not in self.recipe.prompts:
            known = ", ".join(sorted(self.recipe.prompts))
            raise InvalidRequest(
                f"This model has no prompt of that name; {f'it has {known}' if known else 'it has none: leave prompt_name out'}.",
                param="prompt_name",
            )
        if not self.recipe.pools_prompt:
            raise UnsupportedParameter(
                "This checkpoint leaves the prompt's tokens out of its pooling, which is not supported; put the prompt into the"
                " text and leave prompt_name out.",
                param="prompt_name",
            )
        return self.recipe.prompts[name]

    def _encode(self, text: str, prompt: str, param: str) -> Encoded:
        if not text:
            raise InvalidRequest("The input is empty; give a text of at least one character.", param=param)
        return self.tokenizer.encode(self._prepared(text, prompt))

    def _prepared(self, text: str, prompt: str) -> str:
        return (prompt + text).lower() if self.recipe.lowercase else prompt + text

    def _encode_ids(self, ids: list[int], param: str) -> Encoded:
        self.tokenizer.check_ids(ids, param)
        return Encoded(ids, [0] * len(ids))

    def _fit(self, encoded: Encoded, text: str | list[int], prompt: str, request: EmbeddingRequest, param: str) -> Encoded:
        if not encoded.ids:
            raise InvalidRequest("The input has no tokens; give a text that is more than white space.", param=param)
        limit = self.limit
        if limit is None or len(encoded) <= limit:
            return encoded
        if not request.truncate:
            raise InputTooLong(
                f"The input has {len(encoded)} tokens, and this model takes at most {limit}. Shorten it, or ask for truncation.",
                param=param,
            )
        side = request.truncation_direction
        if isinstance(text, str):
            return self.tokenizer.encode(self._prepared(text, prompt), max_tokens=limit, side=side)
        ids = text[:limit] if side == "right" else text[-limit:]
        return Encoded(ids, [0] * len(ids))

    def _item(self, encoded: Encoded) -> Item:
        ids = np.array(encoded.ids, dtype=np.int64)
        arrays: dict[str, Any] = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
        if self._typed:
            arrays["token_type_ids"] = np.array(encoded.type_ids, dtype=np.int64)
        return Item(arrays, cost=len(ids), group=length_group(self.context.card, len(ids)))


def _inputs(request: EmbeddingRequest) -> list[str | list[int]]:
    """The inputs as a list. Numbers alone are the ids of one input."""
    inputs = request.inputs
    if isinstance(inputs, str):
        return [inputs]
    if not inputs:
        raise InvalidRequest("inputs is empty; give at least one text.", param="inputs")
    if all(isinstance(value, int) for value in inputs):
        return [inputs]  # type: ignore[list-item]
    for index, value in enumerate(inputs):
        if isinstance(value, int):
            raise InvalidRequest(
                "inputs mixes single token ids with texts or lists; give texts, or one list of ids per input.",
                param=f"inputs.{index}",
            )
    return inputs  # type: ignore[return-value]
