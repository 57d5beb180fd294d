"""The attention mask as the NPU takes it: what is added to attention's scores, computed on the host."""

from __future__ import annotations

import numpy as np

__all__ = ["FLOAT_HIDDEN", "MASK", "QUANTISED_HIDDEN", "bias_of"]

MASK = "attention_mask"
FLOAT_HIDDEN = -1e4
"""What hides a token in float16, which ends at 65504."""
QUANTISED_HIDDEN = -100.0
"""What hides it among whole numbers, whose steps are a part of the range: e⁻¹⁰⁰ is 0 too, and leaves fine steps for scores."""


def bias_of(mask: np.ndarray, hidden: float = FLOAT_HIDDEN) -> np.ndarray:
    """0 where `mask` is not 0 and `hidden` where it is; float32 of the same shape."""
    return np.where(mask != 0, np.float32(0), np.float32(hidden))
