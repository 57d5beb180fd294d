"""Texts to labelled tokens and spans."""

from __future__ import annotations

from typing import Any

import numpy as np

from modelport.contract import Array, InvalidRequest, Item, SessionContext, to_numpy
from modelport.tasks.tokens import Entity, TokenRequest, TokenResult
from modelport_hf.folder import label_names
from modelport_skill_token_classification.entities import Token, entities_of, without_overlaps
from modelport_skill_token_classification.session import TextSession, texts_of

__all__ = ["TokenSession"]


class TokenSession(TextSession):
    """A text is an item, or several overlapping ones if it is long and may be strided."""

    def __init__(self, context: SessionContext) -> None:
        super().__init__(context)
        self.labels = label_names(context.card.config)
        prefix = getattr(self.tokenizer.backend.model, "continuing_subword_prefix", None)
        self._marks_subwords = bool(prefix)
        self._unknown = self.tokenizer.id_of("unk_token")

    def preprocess(self, request: TokenRequest) -> list[Item]:
        return [self.item(window) for _, windows in self._windows(request) for window in windows]

    def postprocess(self, request: TokenRequest, outputs: list[dict[str, Array]]) -> TokenResult:
        rows = iter(outputs)
        results = []
        for text, windows in self._windows(request):
            found: list[Entity] = []
            for window in windows:
                logits = to_numpy(next(rows)["logits"]).astype(np.float32)[: len(window.ids)]
                tokens = self._tokens(text, window, logits)
                entities = entities_of(tokens, self.labels, request.aggregation_strategy, self.tokenizer.spell)
                found += [e for e in entities if (e.entity or e.entity_group) not in request.ignore_labels]
            results.append(without_overlaps(found) if len(windows) > 1 else found)
        return TokenResult(results=results)

    def _windows(self, request: TokenRequest) -> list[tuple[str, list[Any]]]:
        """Each text with the encodings that cover it."""
        if request.stride is not None and request.aggregation_strategy == "none":
            raise InvalidRequest("stride needs an aggregation_strategy other than 'none'.", param="stride")
        found = []
        for text, param in texts_of(request.inputs):
            most = None if request.stride is None else self.limit
            windows = self.tokenizer.windows(text, max_tokens=most, stride=request.stride or 0)
            if self.limit is not None and len(windows[0].ids) > self.limit:
                raise self.too_long(len(windows[0].ids), param, "Shorten it, or set stride to have it read in windows.")
            found.append((text, windows))
        return found

    def _tokens(self, text: str, window: Any, logits: np.ndarray) -> list[Token]:
        shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
        scores = shifted / shifted.sum(axis=-1, keepdims=True)
        return [
            Token(*self._spelling(text, window, place), scores[place])
            for place, special in enumerate(window.special_tokens_mask)
            if not special
        ]

    def _spelling(self, text: str, window: Any, place: int) -> tuple[str, int, int, int, bool]:
        start, end = window.offsets[place]
        word, said = window.tokens[place], text[start:end]
        if window.ids[place] == self._unknown:
            return said, place, start, end, False
        continues = len(word) != len(said) if self._marks_subwords else start > 0 and " " not in text[start - 1 : start + 1]
        return word, place, start, end, continues
