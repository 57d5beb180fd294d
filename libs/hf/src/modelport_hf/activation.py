"""Logits of a head as scores."""

from __future__ import annotations

import numpy as np

__all__ = ["activated"]


def activated(function: str, logits: np.ndarray) -> np.ndarray:
    """`softmax` over all of `logits`, `sigmoid` of each, or what else it is called: the logits as they are."""
    if function == "softmax":
        e = np.exp(logits - logits.max())
        return np.asarray(e / e.sum())
    if function == "sigmoid":
        e = np.exp(-np.abs(logits))
        return np.asarray(np.where(logits >= 0, 1 / (1 + e), e / (1 + e)))
    return logits
