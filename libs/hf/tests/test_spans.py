"""The best spans of a window, against every span that there is."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelport.contract import InvalidRequest
from modelport_hf.spans import BestSpans, best_spans, refuse_top_k


@given(st.integers(0, 2**32 - 1), st.integers(2, 12), st.integers(1, 5), st.integers(1, 4))
def test_best_spans(seed: int, tokens: int, top_k: int, longest: int) -> None:
    chance = np.random.default_rng(seed)
    start, end = chance.normal(size=(2, tokens))
    of_text = chance.random(tokens) < 0.7
    of_text[0], of_text[-1] = False, True

    found, none = best_spans(start, end, of_text, top_k=top_k, max_tokens=longest)

    may = [0, *np.flatnonzero(of_text)]
    starts, ends = (np.exp(logits) / np.exp(logits[may]).sum() for logits in (start, end))
    every = sorted(((starts[i] * ends[j], i, j) for i in may[1:] for j in may[1:] if i <= j < i + longest), reverse=True)
    assert none == pytest.approx(starts[0] * ends[0])
    assert [span for _, *span in found] == [[i, j] for _, i, j in every[:top_k]]
    assert [score for score, *_ in found] == pytest.approx([score for score, *_ in every[:top_k]])


@given(
    st.lists(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 3), st.integers(0, 3)), max_size=6), max_size=5),
    st.integers(1, 5),
)
def test_the_best_of_all_windows_are_kept_and_no_more(windows: list[list[tuple[int, int, int]]], top_k: int) -> None:
    kept = BestSpans(top_k)
    scores: dict[tuple[int, int], int] = {}
    for window in windows:
        kept.add((score, (start, end)) for score, start, end in window)
        for score, start, end in window:
            scores[start, end] = max(score, scores.get((start, end), 0))
        assert len(kept.best()) <= top_k
    best = kept.best()
    assert [score for _, score in best] == sorted(scores.values(), reverse=True)[:top_k]
    assert all(scores[span] == score for span, score in best)


def test_more_answers_than_anybody_reads_are_refused() -> None:
    refuse_top_k(1000)
    with pytest.raises(InvalidRequest, match="at most 1000") as refused:
        refuse_top_k(1001)
    assert refused.value.param == "top_k"
