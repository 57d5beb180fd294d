"""Sound of a request, as the checkpoint's extractor hands it to the model."""

from __future__ import annotations

from typing import Any

import numpy as np

from modelport.contract import ConfigurationError, InvalidRequest, Item, SessionContext
from modelport.contract.task import Media
from modelport_hf.audio import decode_audio
from modelport_hf.feature_extractor import load_feature_extractor

__all__ = ["Ear"]

_LEAST_SECONDS = 0.1
"""Less than a syllable, and no more than the first layers of a model take in at once."""


class Ear:
    """Decodes and prepares sound.

    Args:
        most_seconds: Of a request's sound, unless the model's option `max_audio_s` says otherwise.
    """

    def __init__(self, context: SessionContext, most_seconds: float) -> None:
        card = context.card
        self.extractor = load_feature_extractor(context.folder, trust_remote_code=card.trust_remote_code)
        self.rate = int(getattr(self.extractor, "sampling_rate", 0))
        if self.rate < 1:
            raise ConfigurationError(f"The feature extractor of {context.folder} names no sampling_rate; mend its settings.")
        option = context.options.get("max_audio_s", card.options.get("max_audio_s", most_seconds))
        if isinstance(option, bool) or not isinstance(option, int | float) or option <= 0:
            raise ConfigurationError(
                f"models.{card.name}.options.max_audio_s is {option!r}; it must be a number above 0.",
                param=f"models.{card.name}.options.max_audio_s",
            )
        self.most_seconds = float(option)

    def samples(self, media: Media) -> np.ndarray:
        """The sound as float32 (samples,).

        Raises:
            InvalidRequest: if there is none that can be taken.
        """
        samples = decode_audio(media, self.rate, "inputs", self.most_seconds)
        if len(samples) < _LEAST_SECONDS * self.rate:
            raise InvalidRequest(
                f"inputs is {len(samples) / self.rate:.3f} s of sound, and at least {_LEAST_SECONDS} s are needed.",
                param="inputs",
            )
        return samples

    def arrays(self, samples: np.ndarray, **options: Any) -> dict[str, np.ndarray]:
        """What the extractor makes of the samples, without a batch axis; a mask only if it masks something.

        Raises:
            InvalidRequest: if they are too few for it.
        """
        try:
            with np.errstate(divide="ignore", invalid="ignore"):
                made = self.extractor(samples, sampling_rate=self.rate, return_tensors="np", **options)
        except (ValueError, RuntimeError, IndexError, ZeroDivisionError) as error:
            why = " ".join(str(error).split())[:200].rstrip(".")
            raise InvalidRequest(
                f"inputs is {len(samples) / self.rate:.3f} s of sound, which this model's extractor does not take: {why}."
                " Send a longer recording.",
                param="inputs",
            ) from error
        arrays = {name: np.ascontiguousarray(value[0]) for name, value in made.items()}
        for name, array in arrays.items():
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                # Some divide by how much silence deviates from its mean, which is nothing by nothing.
                arrays[name] = np.nan_to_num(array, nan=0.0, posinf=0.0, neginf=0.0)
        mask = arrays.get("attention_mask")
        if mask is not None and bool(np.all(mask)):
            del arrays["attention_mask"]
        return arrays

    def item(self, samples: np.ndarray, cost: int, **options: Any) -> Item:
        """One unit of a batch. Items share a batch only if their arrays have one shape: padding changes what a convolution sees
        and, in models that normalise over time, every answer."""
        arrays = self.arrays(samples, **options)
        return Item({**arrays}, cost, group="; ".join(f"{name} {array.shape}" for name, array in sorted(arrays.items())))
