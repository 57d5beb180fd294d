"""Answers that are a span of a text: from the logits of its ends. NumPy only."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from modelport.contract.errors import InvalidRequest

__all__ = ["BestSpans", "best_spans", "refuse_top_k"]

_MOST_ANSWERS = 1000

Span = tuple[int, int]


class BestSpans:
    """The best `top_k` spans over all windows of a text, as they come, and no more of them however many windows there are. A span
    that several windows or tokens give counts once, with its highest score."""

    def __init__(self, top_k: int) -> None:
        self._top_k = top_k
        self._scores: dict[Span, float] = {}

    def add(self, found: Iterable[tuple[float, Span]]) -> None:
        """Takes the spans of a window, each with its score."""
        for score, span in found:
            self._scores[span] = max(score, self._scores.get(span, 0.0))
        self._scores = dict(self._sorted())

    def best(self) -> list[tuple[Span, float]]:
        """The best spans with their scores, best first."""
        return self._sorted()

    def _sorted(self) -> list[tuple[Span, float]]:
        return sorted(self._scores.items(), key=lambda each: -each[1])[: self._top_k]


def refuse_top_k(top_k: int) -> None:
    """Returns if so many answers may be asked for: each window of a text has as many spans as it has tokens, squared.

    Raises:
        InvalidRequest: if not.
    """
    if top_k > _MOST_ANSWERS:
        raise InvalidRequest(f"top_k is {top_k}, and at most {_MOST_ANSWERS} answers are given.", param="top_k")


def best_spans(
    start: np.ndarray, end: np.ndarray, may_answer: np.ndarray, *, top_k: int, max_tokens: int
) -> tuple[list[tuple[float, int, int]], float]:
    """The best (probability, first token, last token) of one window, and the probability that it holds no answer: that both ends
    are its first token, which is special and stands for none.

    Args:
        start: Logits of the first token of an answer, (tokens,).
        end: Logits of the last one, (tokens,).
        may_answer: Which tokens are of the text, (tokens,) bool.
        top_k: How many spans at most.
        max_tokens: The most tokens of a span.
    """
    allowed = may_answer.copy()
    allowed[0] = True
    starts, ends = (_softmax(np.where(allowed, logits.astype(np.float64), -np.inf)) for logits in (start, end))
    none = float(starts[0] * ends[0])
    starts[0] = ends[0] = 0.0
    scores = np.triu(np.outer(starts, ends))
    scores = np.tril(scores, max_tokens - 1)
    flat = scores.ravel()
    count = min(top_k, flat.size)
    best = np.argpartition(-flat, count - 1)[:count]
    firsts, lasts = np.unravel_index(best[np.argsort(-flat[best], kind="stable")], scores.shape)
    found = [(float(scores[i, j]), int(i), int(j)) for i, j in zip(firsts, lasts, strict=True) if scores[i, j] > 0]
    return found, none


def _softmax(logits: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits - logits.max())
    return np.asarray(shifted / shifted.sum())
