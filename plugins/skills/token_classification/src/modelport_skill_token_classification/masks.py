"""Texts with masks to fillings."""

from __future__ import annotations

from typing import Any

import numpy as np

from modelport.contract import Array, ConfigurationError, InvalidRequest, Item, SessionContext, to_numpy
from modelport.tasks.tokens import FilledMask, MaskRequest, MaskResult
from modelport_skill_token_classification.session import TextSession, texts_of

__all__ = ["MaskSession"]


class MaskSession(TextSession):
    """A text is an item; the model's logits leave it only where its masks are."""

    def __init__(self, context: SessionContext) -> None:
        super().__init__(context)
        mask = self.tokenizer.id_of("mask_token")
        if mask is None:
            raise ConfigurationError("The checkpoint's tokenizer has no mask token, so nothing can be filled. Use another one.")
        self.mask = mask

    def preprocess(self, request: MaskRequest) -> list[Item]:
        if request.top_k < 1:
            raise InvalidRequest(f"top_k is {request.top_k}; it must be at least 1.", param="top_k")
        self._targets(request)
        items = []
        for text, param in texts_of(request.inputs):
            encoding = self.tokenizer.windows(text)[0]
            if self.limit is not None and len(encoding.ids) > self.limit:
                raise self.too_long(len(encoding.ids), param, "Shorten it around its masks.")
            places = self._places(encoding)
            if not len(places):
                mask = self.tokenizer.special["mask_token"]
                raise InvalidRequest(f"The text has no mask to fill; this model's is {mask}.", param=param)
            items.append(self.item(encoding, mask_positions=places))
        return items

    def postprocess(self, request: MaskRequest, outputs: list[dict[str, Array]]) -> MaskResult:
        targets = self._targets(request)
        results = []
        for (text, _), output in zip(texts_of(request.inputs), outputs, strict=True):
            encoding = self.tokenizer.windows(text)[0]
            scores = to_numpy(output["logits"]).astype(np.float32)
            rows = zip(self._places(encoding), scores, strict=False)  # rows beyond are padding
            results.append([self._filled(encoding, int(place), row, request.top_k, targets) for place, row in rows])
        return MaskResult(results=results)

    def _filled(self, encoding: Any, place: int, scores: np.ndarray, top_k: int, targets: np.ndarray | None) -> list[FilledMask]:
        among = np.arange(len(scores)) if targets is None else targets
        best = among[np.argsort(-scores[among], kind="stable")[:top_k]]
        found = []
        for token in map(int, best):
            ids = [*encoding.ids[:place], token, *encoding.ids[place + 1 :]]
            sequence = self.tokenizer.decode(ids)
            found.append(FilledMask(float(scores[token]), token, self.tokenizer.decode([token], skip_special=False), sequence))
        return found

    def _places(self, encoding: Any) -> np.ndarray:
        return np.flatnonzero(np.asarray(encoding.ids) == self.mask)

    def _targets(self, request: MaskRequest) -> np.ndarray | None:
        if request.targets is None:
            return None
        found = []
        for index, word in enumerate(request.targets):
            token = self.tokenizer.backend.token_to_id(word)
            ids = [token] if token is not None else self.tokenizer.encode(word, special=False).ids
            if len(ids) != 1:
                raise InvalidRequest(
                    f"The target {word!r} is {len(ids)} tokens of this model; it must be a single one.", param=f"targets.{index}"
                )
            found.append(ids[0])
        if not found:
            raise InvalidRequest("targets is empty; give at least one word, or leave it out.", param="targets")
        return np.array(list(dict.fromkeys(found)))
