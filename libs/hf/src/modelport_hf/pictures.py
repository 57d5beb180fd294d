"""Images of requests as the arrays that a model takes: decoded within bounds, prepared by the checkpoint's own processor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from modelport.contract.array import Array
from modelport.contract.errors import ConfigurationError, InvalidRequest
from modelport.contract.session import SessionContext
from modelport.contract.task import Media
from modelport_hf.image_processor import load_image_processor
from modelport_hf.media import MOST_PIXELS, decode_image

__all__ = ["Pictures", "refuse_long", "shapes"]

_PATCH = 256
"""Pixels that cost as much as a token: 16 × 16, a patch of most transformers."""


class Pictures:
    """What a session of a model that sees needs beside its program. May be used from several threads at once.

    Args:
        names: Which of the processor's arrays the model takes; without any, images are decoded only.
        options: What the processor is to be told beside its own configuration.

    Attributes:
        processor: transformers' processor of the checkpoint; None where images are decoded only.

    Raises:
        ConfigurationError: if the processor cannot be loaded or does not work, or `options.max_pixels` is wrong.
    """

    def __init__(self, context: SessionContext, names: Sequence[str], options: Mapping[str, Any] | None = None) -> None:
        card = context.card
        self.processor: Any = None
        self._names = tuple(names)
        self._options = dict(options or {})
        self._longest = context.limits.max_length if context.limits else None
        self._most_pixels = context.options.get("max_pixels", card.options.get("max_pixels", MOST_PIXELS))
        if not isinstance(self._most_pixels, int) or self._most_pixels < 1:
            raise ConfigurationError(
                f"models.{card.name}.options.max_pixels is {self._most_pixels!r}; it must be a whole number above 0.",
                param=f"models.{card.name}.options.max_pixels",
            )
        if not self._names:
            return
        self.processor = load_image_processor(context.folder, trust_remote_code=card.trust_remote_code)
        # Better to find out now than at the first request.
        try:
            made = self._prepared(Image.new("RGB", (96, 64)))
        except Exception as error:
            why = " ".join(str(error).split())[:300].rstrip(".")
            raise ConfigurationError(f"The image processor of the model {card.name!r} does not work: {why}.") from error
        if missing := set(self._names) - set(made):
            raise ConfigurationError(
                f"The image processor of the model {card.name!r} ({type(self.processor).__name__}) makes no"
                f" {' and no '.join(sorted(missing))}, which this {card.model_type} model takes. It belongs to another model."
            )

    def decode(self, media: Media, param: str) -> Image.Image:
        """The image as RGB; see `media.decode_image`, whose errors it raises."""
        return decode_image(media, param, self._most_pixels)

    def arrays(self, image: Image.Image, param: str) -> dict[str, Array]:
        """The model's inputs, without the batch axis.

        Raises:
            InvalidRequest: if the processor does not take the image.
        """
        refuse_long(image, self.processor, self._most_pixels, param)
        try:
            return self._prepared(image)
        except (ValueError, ZeroDivisionError, OSError, IndexError) as error:
            why = " ".join(str(error).split())[:200].rstrip(".")
            raise InvalidRequest(
                f"The checkpoint's image processor does not take this image: {why}. Send one of a more usual size.",
                param=param,
            ) from error

    def cost(self, arrays: Mapping[str, Array]) -> int:
        """What an image costs, in tokens, at most as much as the longest text: a limit on tokens says nothing of pixels."""
        pixels = int(np.prod(arrays["pixel_values"].shape)) // 3 // _PATCH
        return max(1, min(pixels, self._longest or pixels))

    def _prepared(self, image: Image.Image) -> dict[str, Array]:
        made = self.processor([image], return_tensors="np", **self._options)
        return {name: np.asarray(made[name][0]) for name in self._names if name in made}


def refuse_long(image: Image.Image, processor: Any, most_pixels: int, param: str) -> None:
    """Returns if a processor that gives the shorter side a length, and cuts out the middle then, makes no giant of `image` first.

    Raises:
        InvalidRequest: if it would have more than `most_pixels`.
    """
    size = getattr(processor, "size", None)
    edge, bound = getattr(size, "shortest_edge", None), getattr(size, "longest_edge", None)
    if not isinstance(edge, int) or bound is not None:
        return
    if edge * edge * max(image.size) > most_pixels * min(image.size):
        raise InvalidRequest(
            f"{param} has {image.width} × {image.height} pixels: with {edge} on its shorter side, as the model wants it, it would"
            f" have more than {most_pixels / 1e6:g} million. Cut out the part that matters.",
            param=param,
        )


def shapes(arrays: Mapping[str, Array]) -> str:
    """The shapes of arrays that may not be padded, as the `group` of an item."""
    return "; ".join(f"{name} {array.shape}" for name, array in sorted(arrays.items()))
