"""Sound to labels."""

from __future__ import annotations

import numpy as np

from modelport.contract import Array, InvalidRequest, Item, Session, SessionContext, to_numpy
from modelport.tasks.audio import AudioClassificationRequest
from modelport.tasks.text import LabelScore
from modelport.tasks.vision import LabelsResult
from modelport_hf.activation import activated
from modelport_hf.folder import label_names
from modelport_skill_speech.sound import Ear

__all__ = ["LabelsSession"]

_MOST_SECONDS = 120.0
"""Such models read all of a sound at once, which costs its length squared."""

_TOKEN = 320
"""Samples that cost as much as a token: the stride of Wav2Vec2 and its kin."""


class LabelsSession(Session):
    """One sound is one item."""

    def __init__(self, context: SessionContext) -> None:
        super().__init__(context)
        self._ear = Ear(context, _MOST_SECONDS)
        self._labels = label_names(context.card.config)
        self._several = context.card.config.get("problem_type") == "multi_label_classification" or len(self._labels) == 1
        self._longest = context.limits.max_length if context.limits else None

    def preprocess(self, request: AudioClassificationRequest) -> list[Item]:
        """The item of a request."""
        if request.top_k is not None and request.top_k < 1:
            raise InvalidRequest(f"top_k is {request.top_k}; it must be at least 1.", param="top_k")
        samples = self._ear.samples(request.inputs)
        cost = max(1, len(samples) // _TOKEN)
        return [self._ear.item(samples, min(cost, self._longest or cost))]

    def postprocess(self, request: AudioClassificationRequest, outputs: list[dict[str, Array]]) -> LabelsResult:
        """Labels, best first."""
        logits = to_numpy(outputs[0]["logits"]).astype(np.float64)
        scores = activated(request.function_to_apply or ("sigmoid" if self._several else "softmax"), logits)
        order = np.argsort(-scores, kind="stable")[: request.top_k]
        return LabelsResult(results=[LabelScore(self._label(int(i)), float(scores[i])) for i in order])

    def _label(self, index: int) -> str:
        return self._labels[index] if index < len(self._labels) else f"LABEL_{index}"
