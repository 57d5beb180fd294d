"""Questions and contexts to answers."""

from __future__ import annotations

from typing import Any

import numpy as np

from modelport.contract import Array, InvalidRequest, Item, to_numpy
from modelport.tasks.tokens import AnsweringRequest, AnsweringResult, AnswerSpan, Question
from modelport_hf.spans import BestSpans, best_spans, refuse_top_k
from modelport_skill_token_classification.session import TextSession

__all__ = ["AnsweringSession"]


class AnsweringSession(TextSession):
    """A question with a window of its context is an item."""

    def preprocess(self, request: AnsweringRequest) -> list[Item]:
        for name, least in (("top_k", 1), ("max_answer_len", 1), ("doc_stride", 0), ("max_seq_len", 1)):
            if getattr(request, name) < least:
                raise InvalidRequest(f"{name} is {getattr(request, name)}; it must be at least {least}.", param=name)
        refuse_top_k(request.top_k)
        return [self.item(window) for windows in self._windows(request) for window in windows]

    def postprocess(self, request: AnsweringRequest, outputs: list[dict[str, Array]]) -> AnsweringResult:
        rows = iter(outputs)
        results = []
        for question, windows in zip(_questions(request), self._windows(request), strict=True):
            spans = BestSpans(request.top_k)
            impossible = 1.0
            for window in windows:
                row = next(rows)
                found, none = best_spans(
                    to_numpy(row["start_logits"])[: len(window.ids)],
                    to_numpy(row["end_logits"])[: len(window.ids)],
                    np.array([sequence == 1 for sequence in window.sequence_ids]),
                    top_k=request.top_k,
                    max_tokens=request.max_answer_len,
                )
                impossible = min(impossible, none)
                spans.add((score, self._characters(window, first, last, request)) for score, first, last in found)
            results.append(_best(question.context, spans, impossible, request))
        return AnsweringResult(results=results)

    def _windows(self, request: AnsweringRequest) -> list[list[Any]]:
        """For each question the encodings of it with each window of its context."""
        most = min(request.max_seq_len, self.limit or request.max_seq_len)
        found = []
        for index, question in enumerate(_questions(request)):
            param = f"inputs.{index}" if isinstance(request.inputs, list) else "inputs"
            for name in ("question", "context"):
                if not getattr(question, name).strip():
                    raise InvalidRequest(f"The {name} is empty; give at least one word.", param=f"{param}.{name}")
            windows = self.tokenizer.windows(question.question, question.context, max_tokens=most, stride=request.doc_stride)
            if not windows:
                raise self.too_long(most, f"{param}.question", "The question leaves no room for its context: shorten it.")
            found.append(windows)
        return found

    def _characters(self, window: Any, first: int, last: int, request: AnsweringRequest) -> tuple[int, int]:
        """The span of the context from token `first` to token `last`, widened to words where that is asked."""
        if request.align_to_words and window.word_ids[first] is not None and window.word_ids[last] is not None:
            start = window.word_to_chars(window.word_ids[first], 1)
            end = window.word_to_chars(window.word_ids[last], 1)
            if start is not None and end is not None:
                return int(start[0]), int(end[1])
        return int(window.offsets[first][0]), int(window.offsets[last][1])


def _questions(request: AnsweringRequest) -> list[Question]:
    questions = request.inputs if isinstance(request.inputs, list) else [request.inputs]
    if not questions:
        raise InvalidRequest("inputs is empty; give at least one question.", param="inputs")
    return questions


def _best(context: str, spans: BestSpans, impossible: float, request: AnsweringRequest) -> list[AnswerSpan]:
    """The best answers over all windows."""
    found = [AnswerSpan(context[start:end], score, start, end) for (start, end), score in spans.best()]
    if request.handle_impossible_answer:
        found.append(AnswerSpan("", impossible, 0, 0))
    return sorted(found, key=lambda answer: -answer.score)[: request.top_k]
