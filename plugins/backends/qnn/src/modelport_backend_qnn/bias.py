"""The attention mask as the NPU takes it: what is added to attention's scores, computed on the host."""

from __future__ import annotations

import numpy as np

__all__ = ["MASK", "bias_of"]

MASK = "attention_mask"
_HIDDEN = -1e4  # float16, in which the NPU computes, ends at 65504


def bias_of(mask: np.ndarray) -> np.ndarray:
    """0 where `mask` is not 0 and -10,000 where it is; float32 of the same shape."""
    return np.where(mask != 0, np.float32(0), np.float32(_HIDDEN))
