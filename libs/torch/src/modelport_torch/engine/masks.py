"""Attention masks for rows of different lengths, in the form that each architecture takes.

transformers takes a four-dimensional mask as it is; a model whose layers differ takes one per kind of layer. Where rows have
one length, or a prefill starts at column 0, no mask is made at all: transformers' own (or none) is right, and faster.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

__all__ = ["Masks"]

Allowed = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class Masks:
    """Makes masks for one model.

    Args:
        config: The model's configuration object (of the language model, if it has several).
        dtype: The type that the model computes in: masks are added to its attention scores.
    """

    def __init__(self, config: Any, dtype: torch.dtype) -> None:
        self._dtype = dtype
        self._window = getattr(config, "sliding_window", None)
        self._chunk = getattr(config, "attention_chunk_size", None)
        kinds = getattr(config, "layer_types", None)
        self._kinds = frozenset(kinds) if kinds is not None else None

    def __call__(self, positions: torch.Tensor, width: int) -> Any:
        """A mask, or one per kind of layer, for new tokens at `positions` (batch, new) over the columns 0 … `width`."""
        if self._kinds is None:
            kind = "sliding_attention" if self._window else "chunked_attention" if self._chunk else "full_attention"
            return self._mask(kind, positions, width)
        return {kind: self._mask(kind, positions, width) for kind in self._kinds}

    def _mask(self, kind: str, positions: torch.Tensor, width: int) -> torch.Tensor:
        here = positions[:, None, :, None]
        there = torch.arange(width, device=positions.device)
        hidden = there > here
        if kind == "sliding_attention" and self._window:
            hidden |= there <= here - self._window
        elif kind == "chunked_attention" and self._chunk:
            hidden |= there // self._chunk != here // self._chunk
        # The smallest finite number rather than -inf: a row that is all hidden must not become NaN.
        mask = torch.zeros(hidden.shape, dtype=self._dtype, device=positions.device)
        return mask.masked_fill_(hidden, torch.finfo(self._dtype).min)
