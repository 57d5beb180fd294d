"""Images to the pixels of models that cut out: their processors' arithmetic, on Pillow, as some exist for torchvision only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from PIL import Image

from modelport.contract import ConfigurationError, ModelCard
from modelport_hf.image_processor import image_settings

__all__ = ["PixelRecipe"]

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class PixelRecipe(msgspec.Struct, frozen=True, kw_only=True):
    """What the checkpoint's preprocessor_config.json says.

    Args:
        shape: (height, width) of the pixels.
        longest_edge: The longer side that an image gets, before it is padded to `shape` below and to the right; None if it is
            stretched to `shape`.
        resample: Pillow's number of the filter.
        factor: What each value is multiplied by.
        mean: Of each colour.
        std: Of each colour.
    """

    shape: tuple[int, int]
    longest_edge: int | None = None
    resample: int = 2
    factor: float = 1 / 255
    mean: tuple[float, ...] = _MEAN
    std: tuple[float, ...] = _STD

    @classmethod
    def of(cls, card: ModelCard) -> PixelRecipe:
        """The recipe of a checkpoint.

        Raises:
            ConfigurationError: if its file does not hold one.
        """
        own = image_settings(Path(card.path)) if card.path else {}
        size, pad = own.get("size") or {}, own.get("pad_size") or {}
        edge = size.get("longest_edge") if isinstance(size, dict) else None
        try:
            sides = (pad or {"height": edge, "width": edge}) if edge else (size or {"height": 1024, "width": 1024})
            return cls(
                shape=(int(sides["height"]), int(sides["width"])),
                longest_edge=int(edge) if edge else None,
                resample=int(own.get("resample", 2)),
                factor=float(own.get("rescale_factor", 1 / 255)) if own.get("do_rescale", True) else 1.0,
                mean=tuple(own.get("image_mean") or _MEAN) if own.get("do_normalize", True) else (0.0, 0.0, 0.0),
                std=tuple(own.get("image_std") or _STD) if own.get("do_normalize", True) else (1.0, 1.0, 1.0),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigurationError(
                f"The preprocessor_config.json of the model {card.name!r} does not say which size its images get ({error})."
            ) from error

    def inner(self, size: tuple[int, int]) -> tuple[int, int]:
        """(height, width) that an image of `size` gets before it is padded."""
        if self.longest_edge is None:
            return self.shape
        scale = self.longest_edge / max(size)
        return int(size[0] * scale + 0.5), int(size[1] * scale + 0.5)

    def pixels(self, image: Image.Image) -> np.ndarray:
        """(3, height, width) float32 of an RGB image."""
        height, width = self.inner((image.height, image.width))
        resized = np.asarray(image.resize((max(width, 1), max(height, 1)), Image.Resampling(self.resample)), dtype=np.float32)
        values = (resized * self.factor - np.array(self.mean, np.float32)) / np.array(self.std, np.float32)
        out = np.zeros((3, *self.shape), dtype=np.float32)
        out[:, : values.shape[0], : values.shape[1]] = values.transpose(2, 0, 1)
        return out

    def scaled(self, points: Any, size: tuple[int, int]) -> np.ndarray:
        """Points (…, 2) as (x, y) of an image of `size` (height, width), in the pixels' coordinates."""
        height, width = self.inner(size)
        return np.asarray(points, dtype=np.float64) * (width / size[1], height / size[0])
