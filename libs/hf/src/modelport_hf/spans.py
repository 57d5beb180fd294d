"""Answers that are a span of a text: from the logits of its ends. NumPy only."""

from __future__ import annotations

import numpy as np

__all__ = ["best_spans"]


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
