"""Texts to ids, and what the model makes of them to the results of the tasks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import numpy as np

from modelport.contract import (
    Array,
    InputTooLong,
    InvalidRequest,
    Item,
    Run,
    Session,
    SessionContext,
    UnsupportedParameter,
    to_numpy,
)
from modelport.tasks.embeddings import (
    SimilarityInputs,
    SimilarityRequest,
    SimilarityResult,
    SparseEmbeddingRequest,
    SparseEmbeddingResult,
    SparseValue,
    TokenEmbeddingRequest,
    TokenEmbeddingResult,
)
from modelport.tasks.text import EmbeddingRequest, EmbeddingResult
from modelport_hf.folder import position_limit
from modelport_hf.padding import length_group
from modelport_hf.tokenizer import Encoded, load_tokenizer
from modelport_hf.vectors import inputs_of, refuse_dimensions, shortened, unit
from modelport_skill_text_embedding.recipe import recipe_of

__all__ = ["EmbeddingSession"]


MOST_TOKENS = 16_384
"""Most tokens of one request for vectors of tokens: 64 MiB at a width of 1024."""

TextsRequest = EmbeddingRequest | TokenEmbeddingRequest | SparseEmbeddingRequest | SimilarityRequest


class EmbeddingSession(Session):
    """One text, or list of token ids, is one item; the last normalisation is done here, since a request may choose it."""

    def __init__(self, context: SessionContext) -> None:
        super().__init__(context)
        card = context.card
        self.recipe = recipe_of(card, sparse=context.task == "sparse-embedding")
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

    def handle(self, request: TextsRequest, run: Run) -> AsyncGenerator[Any, None]:
        """As the default, but a batch's token states are let go of, or fetched, as soon as it is there."""
        return self._handle(request, run)

    async def _handle(self, request: TextsRequest, run: Run) -> AsyncGenerator[Any, None]:
        items = await run.cpu(self.preprocess, request)
        wanted = "tokens" if isinstance(request, TokenEmbeddingRequest) else "embedding"

        async def row(item: Item) -> dict[str, Array]:
            output = await run.forward("main", item)
            # Rows of a batch are views of all of it; padding is nobody's token.
            return {wanted: to_numpy(output[wanted][: item.cost]).copy() if wanted == "tokens" else output[wanted]}

        yield await run.cpu(self.postprocess, request, await asyncio.gather(*map(row, items)))

    def preprocess(self, request: TextsRequest) -> list[Item]:
        refuse_dimensions(getattr(request, "dimensions", None))
        prompt = self._prompt(request)
        items = []
        for text, param in _texts(request):
            encoded = self._encode_ids(text, param) if isinstance(text, list) else self._encode(text, prompt, param)
            items.append(self._item(self._fit(encoded, text, prompt, request, param)))
        total = sum(item.cost for item in items)
        if isinstance(request, TokenEmbeddingRequest) and total > MOST_TOKENS:
            raise InvalidRequest(
                f"The inputs have {total} tokens, and a request gives vectors of at most {MOST_TOKENS}. Send several requests.",
                param="inputs",
            )
        return items

    def postprocess(self, request: TextsRequest, outputs: list[dict[str, Array]]) -> Any:
        if isinstance(request, TokenEmbeddingRequest):
            return TokenEmbeddingResult(results=[to_numpy(row["tokens"]).astype(np.float32, copy=False) for row in outputs])
        rows = [to_numpy(row["embedding"]).astype(np.float32, copy=False) for row in outputs]
        if isinstance(request, SparseEmbeddingRequest):
            return SparseEmbeddingResult(results=[_entries(row) for row in rows])
        vectors = np.stack(rows)
        if isinstance(request, SimilarityRequest):
            source, *others = unit(vectors)
            return SimilarityResult(results=(np.stack(others) @ source).tolist())
        return EmbeddingResult(embeddings=np.ascontiguousarray(self._chosen(request, vectors)))

    def _chosen(self, request: EmbeddingRequest, vectors: np.ndarray) -> np.ndarray:
        """The dimensions and the length that a request asks for."""
        vectors = shortened(vectors, request.dimensions)
        return unit(vectors) if (self.recipe.normalize if request.normalize is None else request.normalize) else vectors

    def _prompt(self, request: TextsRequest) -> str:
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

    def _fit(self, encoded: Encoded, text: str | list[int], prompt: str, request: TextsRequest, param: str) -> Encoded:
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


def _entries(row: np.ndarray) -> list[SparseValue]:
    places = np.flatnonzero(row)
    return [SparseValue(index, value) for index, value in zip(places.tolist(), row[places].tolist(), strict=True)]


def _texts(request: TextsRequest) -> list[tuple[str | list[int], str]]:
    """Each input with the name of its field. Numbers alone are the ids of one input."""
    inputs = request.inputs
    if isinstance(inputs, SimilarityInputs):
        if not inputs.sentences:
            raise InvalidRequest("sentences is empty; give at least one to compare with.", param="inputs.sentences")
        others = [(text, f"inputs.sentences.{index}") for index, text in enumerate(inputs.sentences)]
        return [(inputs.source_sentence, "inputs.source_sentence"), *others]
    return inputs_of(inputs)
