"""Logits to scores. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

__all__ = ["Activation", "activation_of", "applied"]

Activation = Literal["softmax", "sigmoid", "none"]

_NAMES: dict[str, Activation] = {"Sigmoid": "sigmoid", "Identity": "none", "Softmax": "softmax"}


def activation_of(config: Mapping[str, Any], labels: int) -> Activation:
    """What a checkpoint turns its logits into: what a sentence-transformers cross-encoder says of itself, else the sigmoid for
    one label and for problems of several labels at once, else softmax."""
    said = (config.get("sentence_transformers") or {}).get("activation_fn") or config.get("sbert_ce_default_activation_function")
    if isinstance(said, str) and (known := _NAMES.get(said.rsplit(".", 1)[-1])) is not None:
        return known
    if labels == 1:
        return "none" if config.get("problem_type") == "regression" else "sigmoid"
    return "sigmoid" if config.get("problem_type") == "multi_label_classification" else "softmax"


def applied(activation: Activation, logits: np.ndarray) -> np.ndarray:
    """Scores of (rows, labels) logits, in float64 so that large logits keep their order."""
    x = logits.astype(np.float64)
    if activation == "softmax":
        e = np.exp(x - x.max(axis=-1, keepdims=True))
        return np.asarray(e / e.sum(axis=-1, keepdims=True))
    if activation == "sigmoid":
        e = np.exp(-np.abs(x))
        return np.asarray(np.where(x >= 0, 1 / (1 + e), e / (1 + e)))
    return x
