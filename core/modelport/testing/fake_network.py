"""A tiny network in NumPy, with random weights from a seed: what the fake backends run."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["TinyNetwork", "write_tiny_network"]

Arrays = Mapping[str, np.ndarray]


def write_tiny_network(folder: Path, seed: int = 0, **config: Any) -> Path:
    """Makes a checkpoint of a `TinyNetwork` in `folder`.

    Args:
        folder: Made if need be.
        seed: All weights follow from it.
        config: `width`, `labels`, `pieces` (the text of each token; the first ends a generation), `chain` (token → the
            tokens that surely follow it, one of them at random).
    """
    folder.mkdir(parents=True, exist_ok=True)
    made = {"model_type": "tiny_numpy", "seed": seed, **config}
    (folder / "config.json").write_text(json.dumps(made), encoding="utf-8")
    return folder


class TinyNetwork:
    """Methods for every shape of model that the contract must carry: tokens to states, two towers, an encoder and a decoder, a
    window that tells how far to go on, concatenated rows, frames to samples, and next-token logits.

    No output depends on padding, on other rows, or on their number.
    """

    def __init__(self, folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        self.pieces: list[str] = config.get("pieces") or ["</s>", *map(chr, range(32, 127))]
        self.vocabulary = len(self.pieces)
        self.width: int = config.get("width", 8)
        random = np.random.default_rng(config["seed"])

        def weights(*shape: int) -> np.ndarray:
            return random.normal(size=shape).astype(np.float32)

        self._embedding = weights(self.vocabulary, self.width)
        self._mix = weights(self.width, self.width) / np.float32(self.width**0.5)
        self._labels = weights(self.width, config.get("labels", 3))
        self._image = weights(16, self.width)
        self._samples = weights(self.width, 4)
        self._next = weights(self.vocabulary, self.vocabulary)
        self._before = weights(self.vocabulary, self.vocabulary)
        for token, following in config.get("chain", {}).items():
            self._next[int(token), following] = 60.0

    def call(self, method: str, inputs: Arrays) -> dict[str, np.ndarray]:
        """The named outputs of a method (`forward`, `get_text_features`, …). Inputs that it does not take are for reductions."""
        function = getattr(self, method)
        taken = inspect.signature(function).parameters
        outputs: dict[str, np.ndarray] = function(**{name: value for name, value in inputs.items() if name in taken})
        return outputs

    def forward(self, input_ids: np.ndarray, attention_mask: np.ndarray) -> dict[str, np.ndarray]:
        """Each state is mixed with the mean of its row, so rows and positions matter and padding must not."""
        mask = (attention_mask != 0).astype(np.float32)[..., None]
        states = self._embedding[input_ids % self.vocabulary]
        mean = (states * mask).sum(axis=1, keepdims=True) / np.maximum(mask.sum(axis=1, keepdims=True), 1)
        states = np.tanh(np.einsum("bsw,wv->bsv", states + mean, self._mix))
        pooled = (states * mask).sum(axis=1) / np.maximum(mask.sum(axis=1), 1)
        return {"last_hidden_state": states, "logits": np.einsum("bw,wl->bl", pooled, self._labels)}

    def get_text_features(self, input_ids: np.ndarray, attention_mask: np.ndarray) -> dict[str, np.ndarray]:
        """The text tower."""
        mask = (attention_mask != 0).astype(np.float32)[..., None]
        return {"text_embeds": (self._embedding[input_ids % self.vocabulary] * mask).sum(axis=1)}

    def get_image_features(self, pixel_values: np.ndarray) -> dict[str, np.ndarray]:
        """The image tower: (batch, 16) → (batch, width)."""
        return {"image_embeds": np.einsum("bp,pw->bw", pixel_values, self._image)}

    def encode(self, pixel_values: np.ndarray) -> dict[str, np.ndarray]:
        """The costly half: (batch, 16) → (batch, width)."""
        return {"features": np.tanh(np.einsum("bp,pw->bw", pixel_values, self._image))}

    def decode(self, features: np.ndarray, points: np.ndarray) -> dict[str, np.ndarray]:
        """The cheap half: features and points (batch, 2) → (batch, width)."""
        return {"masks": features * points.sum(axis=1, keepdims=True) + np.einsum("bw,wv->bv", features, self._mix)}

    def window(self, values: np.ndarray, mask: np.ndarray) -> dict[str, np.ndarray]:
        """How far to move on, 1 to 4, and a token: both from the mean of what is in the window."""
        real = (mask != 0).astype(np.float32)
        mean = np.abs((values * real).sum(axis=1) / np.maximum(real.sum(axis=1), 1))
        return {"advance": 1 + (mean * 1000).astype(np.int64) % 4, "token": (mean * 7919).astype(np.int64) % self.vocabulary}

    def packed(self, values: np.ndarray, segments: np.ndarray) -> dict[str, np.ndarray]:
        """Rows laid end to end: each value over the sum of its own segment; segment −1 is padding."""
        sums = np.zeros(int(segments.max(initial=0)) + 1, np.float64)
        real = segments >= 0
        np.add.at(sums, segments[real], values[real])
        return {"shares": np.where(real, values / np.where(real, sums[segments], 1), 0).astype(np.float32)}

    def vocode(self, frames: np.ndarray) -> dict[str, np.ndarray]:
        """(batch, sequence, width) → (batch, sequence, 4) samples."""
        return {"waveform": np.tanh(np.einsum("bsw,wn->bsn", frames, self._samples))}

    def next_logits(self, tokens: list[int]) -> np.ndarray:
        """Logits of the token after `tokens`, from the last two."""
        before = tokens[-2] if len(tokens) > 1 else 0
        return np.asarray(self._next[tokens[-1] % self.vocabulary] + 0.5 * self._before[before % self.vocabulary])
