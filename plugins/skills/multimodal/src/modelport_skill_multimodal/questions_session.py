"""A question and an image to the likeliest answers."""

from __future__ import annotations

import numpy as np
from scipy.special import expit  # type: ignore[import-untyped,unused-ignore]

from modelport.contract import Array, Item, Session, SessionContext, to_numpy
from modelport.tasks.multimodal import VisualAnswer, VisualAnswersResult, VisualQuestionRequest
from modelport_hf.folder import label_names
from modelport_hf.pictures import Pictures, shapes
from modelport_skill_multimodal.texts import Texts

__all__ = ["QuestionsSession"]


class QuestionsSession(Session):
    """A question and its image are an item, which shares a batch with others whose images have one shape."""

    def __init__(self, context: SessionContext) -> None:
        super().__init__(context)
        self.labels = label_names(context.card.config)
        self.pictures = Pictures(context, ["pixel_values", "pixel_mask"])
        self.texts = Texts(context, context.card.config)
        self.pads = self.texts.pads

    def preprocess(self, request: VisualQuestionRequest) -> list[Item]:
        text = self.texts.item(request.question, "question")
        arrays = self.pictures.arrays(self.pictures.decode(request.image, "image"), "image")
        arrays["pixel_mask"] = to_numpy(arrays["pixel_mask"]).astype(np.int64)
        types = np.zeros_like(to_numpy(text.arrays["input_ids"]))
        return [Item({**text.arrays, "token_type_ids": types, **arrays}, self.pictures.cost(arrays), group=shapes(arrays))]

    def postprocess(self, request: VisualQuestionRequest, outputs: list[dict[str, Array]]) -> VisualAnswersResult:
        logits = to_numpy(outputs[0]["logits"]).astype(np.float64)
        scores = expit(logits)  # several answers may be right
        order = np.argsort(-logits, kind="stable")[: request.top_k]
        return VisualAnswersResult(results=[VisualAnswer(self._label(i), float(scores[i])) for i in order])

    def _label(self, index: int) -> str:
        return self.labels[index] if index < len(self.labels) else f"LABEL_{index}"
