"""A question and a page to the words that answer it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import numpy as np
from PIL import Image

from modelport.contract import Array, InputTooLong, InvalidRequest, Item, Run, Session, SessionContext, to_numpy
from modelport.tasks.multimodal import DocumentAnswer, DocumentAnswersResult, DocumentQuestionRequest
from modelport_hf.pictures import Pictures, shapes
from modelport_hf.spans import BestSpans, best_spans, refuse_top_k
from modelport_skill_multimodal.documents import sees
from modelport_skill_multimodal.ocr import read_words
from modelport_skill_multimodal.texts import Texts

__all__ = ["DocumentsSession"]

_MOST_SHARED = 256
"""Most tokens that two windows over a page have in common."""


class DocumentsSession(Session):
    """A question with a window over the words of its page is an item; a page that is seen is in each of its windows."""

    def __init__(self, context: SessionContext) -> None:
        super().__init__(context)
        self.sees = sees(context.card)
        self.pictures = Pictures(context, ["pixel_values"] if self.sees else [], {"apply_ocr": False})
        self.texts = Texts(context, context.card.config)
        self.pads = self.texts.pads
        # LayoutLM was trained with the end marks in the lower right corner, LayoutLMv3 with all marks in the upper left one.
        self._end = 0 if self.sees else 1000

    async def handle(self, request: DocumentQuestionRequest, run: Run) -> AsyncGenerator[DocumentAnswersResult, None]:
        words, windows, items = await run.cpu(self._prepared, request)
        outputs = await asyncio.gather(*(run.forward("main", item) for item in items))
        yield await run.cpu(self._answered, request, words, windows, outputs)

    def _prepared(self, request: DocumentQuestionRequest) -> tuple[list[str], list[Any], list[Item]]:
        refuse_top_k(request.top_k)
        image = self.pictures.decode(request.image, "image")
        words, pixel_boxes = request.words, request.boxes
        if words is None or pixel_boxes is None:
            words, pixel_boxes = read_words(image)
        if not any(word.strip() for word in words):
            param = "words" if request.words is not None else "image"
            raise InvalidRequest("The page has no words, so there is nothing to answer from.", param=param)
        boxes = _in_thousandths(pixel_boxes, image)
        windows = self._windows(request.question, words)
        seen = self.pictures.arrays(image, "image") if self.sees else {}
        return words, windows, [self._item(window, boxes, seen) for window in windows]

    def _windows(self, question: str, words: list[str]) -> list[Any]:
        """Encodings of the question with each part of the page."""
        tokenizer, limit = self.texts.tokenizer, self.texts.limit
        stride = min((limit or 0) // 2, _MOST_SHARED)
        windows = tokenizer.windows(question.split(), words, max_tokens=limit, stride=stride)
        if not windows:
            raise InputTooLong(
                f"The question leaves no room for the page: both together are read {limit} tokens at a time. Shorten it.",
                param="question",
            )
        return windows

    def _item(self, window: Any, boxes: np.ndarray, seen: dict[str, Array]) -> Item:
        ids = np.array(window.ids, dtype=np.int64)
        places = np.zeros((len(ids), 4), dtype=np.int64)
        end = self.texts.tokenizer.id_of("sep_token")
        for index, (sequence, word) in enumerate(zip(window.sequence_ids, window.word_ids, strict=True)):
            if sequence == 1:
                places[index] = boxes[word]
            elif ids[index] == end:
                places[index] = self._end
        arrays: dict[str, Array] = {"input_ids": ids, "attention_mask": np.ones_like(ids), "bbox": places, **seen}
        if not self.sees:
            arrays["token_type_ids"] = np.array(window.type_ids, dtype=np.int64)
        return Item(arrays, cost=len(ids), group=shapes(seen))

    def _answered(
        self, request: DocumentQuestionRequest, words: list[str], windows: list[Any], outputs: list[dict[str, Array]]
    ) -> DocumentAnswersResult:
        """The best answers of all windows."""
        spans = BestSpans(request.top_k)
        impossible = 1.0
        for window, output in zip(windows, outputs, strict=True):
            found, none = best_spans(
                to_numpy(output["start_logits"])[: len(window.ids)],
                to_numpy(output["end_logits"])[: len(window.ids)],
                np.array([sequence == 1 for sequence in window.sequence_ids]),
                top_k=request.top_k,
                max_tokens=request.max_answer_len,
            )
            impossible = min(impossible, none)
            spans.add((score, (window.word_ids[first], window.word_ids[last])) for score, first, last in found)
        answers = [DocumentAnswer(" ".join(words[start : end + 1]), score, start, end) for (start, end), score in spans.best()]
        if request.handle_impossible_answer:
            answers.append(DocumentAnswer("", impossible, 0, 0))
        return DocumentAnswersResult(results=sorted(answers, key=lambda answer: -(answer.score or 0.0))[: request.top_k])


def _in_thousandths(boxes: Sequence[tuple[int, int, int, int]], image: Image.Image) -> np.ndarray:
    """Boxes in thousandths of the image's sides, (words, 4), rounded down.

    Raises:
        InvalidRequest: if one is upside down, or not inside the image.
    """
    for index, (left, top, right, bottom) in enumerate(boxes):
        if not (0 <= left <= right <= image.width and 0 <= top <= bottom <= image.height):
            raise InvalidRequest(
                f"The box ({left}, {top}, {right}, {bottom}) does not lie in the image, which has {image.width} × {image.height}"
                " pixels. Boxes are (left, top, right, bottom) in pixels.",
                param=f"boxes.{index}",
            )
    sides = np.array([image.width, image.height] * 2, dtype=np.float64)
    return np.asarray((1000 * (np.array(boxes, dtype=np.float64).reshape(-1, 4) / sides)).astype(np.int64))
