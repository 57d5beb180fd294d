"""Zero-shot classification by a model of natural language inference: does a text entail that it is about a label? Pure.

Yin, Hay and Roth, "Benchmarking Zero-shot Text Classification" (2019).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from modelport_skill_text_classification.scores import applied

__all__ = ["entailment_label", "label_scores"]


def entailment_label(labels: Sequence[str]) -> int | None:
    """Which label says that the first text entails the second; None if the model is not of that kind."""
    return next((index for index, name in enumerate(labels) if name.lower().startswith("entail")), None)


def label_scores(logits: np.ndarray, entailment: int, *, multi_label: bool) -> np.ndarray:
    """Scores of (candidates, labels) logits, in float64.

    With `multi_label`, or a single candidate, each candidate's entailment against its contradiction, which is the first
    other label; else entailment of one candidate against the others.
    """
    if multi_label or len(logits) == 1:
        contradiction = -1 if entailment == 0 else 0
        return applied("softmax", logits[:, [contradiction, entailment]])[:, 1]
    return applied("softmax", logits[:, entailment])
