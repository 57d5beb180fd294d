"""Images of requests, and frames of videos, as the arrays that a model takes: decoded within bounds, and prepared by the
checkpoint's own processor."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from modelport.contract.array import Array
from modelport.contract.errors import ConfigurationError, InvalidRequest
from modelport.contract.session import SessionContext
from modelport.contract.task import Media
from modelport_hf.image_processor import load_image_processor
from modelport_hf.media import MOST_PIXELS, decode_image

__all__ = ["Pictures", "most_pixels_of", "refuse_long", "shapes"]

_PATCH = 256
"""Pixels that cost as much as a token: 16 × 16, a patch of most transformers."""

_MOST_PREPARED = 2048 * 2048
"""Most pixels of an image as the model gets it. Nearly all processors make far fewer; those that keep an image's size (GLPN's)
would hand a photograph to layers that need gigabytes for each."""


class Pictures:
    """What a session of a model that sees needs beside its program. May be used from several threads at once.

    Args:
        names: Which of the processor's arrays the model takes, the pixels first; without any, images are decoded only.
        options: What the processor is to be told beside its own configuration.
        may_lack: Which of the arrays some processors of such models do not make.
        frames: How many frames a video has, if it is videos that the model takes.

    Attributes:
        processor: transformers' processor of the checkpoint; None where images are decoded only.
        most_pixels: Of one image.
        tried: The arrays of a black image, or video, (96, 64).

    Raises:
        ConfigurationError: if the processor cannot be loaded or does not work, or `options.max_pixels` is wrong.
    """

    def __init__(
        self,
        context: SessionContext,
        names: Sequence[str],
        options: Mapping[str, Any] | None = None,
        *,
        may_lack: Collection[str] = (),
        frames: int = 0,
    ) -> None:
        card = context.card
        self.processor: Any = None
        self.most_pixels = most_pixels_of(context)
        self.tried: Mapping[str, Array] = {}
        self._names = tuple(names)
        self._options = dict(options or {})
        self._longest = context.limits.max_length if context.limits else None
        if not self._names:
            return
        self.processor = load_image_processor(context.folder, trust_remote_code=card.trust_remote_code)
        # Better to find out now than at the first request.
        black = Image.new("RGB", (96, 64))
        try:
            self.tried = self._prepared([black] * frames if frames else black)
        except Exception as error:
            why = " ".join(str(error).split())[:300].rstrip(".")
            raise ConfigurationError(f"The image processor of the model {card.name!r} does not work: {why}.") from error
        if missing := set(self._names).difference(self.tried, may_lack):
            raise ConfigurationError(
                f"The image processor of the model {card.name!r} ({type(self.processor).__name__}) makes no"
                f" {' and no '.join(sorted(missing))}, which this {card.model_type} model takes. It belongs to another model."
            )

    def decode(self, media: Media, param: str) -> Image.Image:
        """The image as RGB; see `media.decode_image`, whose errors it raises."""
        return decode_image(media, param, self.most_pixels)

    def arrays(self, image: Image.Image | list[Image.Image], param: str) -> dict[str, Array]:
        """The model's inputs for an image, or for the frames of a video, without the batch axis.

        Raises:
            InvalidRequest: if the processor does not take the image, or leaves it so large that no model has the memory for it.
        """
        refuse_long(image[0] if isinstance(image, list) else image, self.processor, self.most_pixels, param)
        try:
            made = self._prepared(image)
        except (ValueError, ZeroDivisionError, OSError, IndexError) as error:
            why = " ".join(str(error).split())[:200].rstrip(".")
            raise InvalidRequest(
                f"The checkpoint's image processor does not take this image: {why}. Send one of a more usual size.",
                param=param,
            ) from error
        shape = made[self._names[0]].shape
        if len(shape) > 2 and shape[-1] * shape[-2] > _MOST_PREPARED:
            raise InvalidRequest(
                f"{param} reaches the model with {shape[-1]} × {shape[-2]} pixels, as its processor makes images no smaller, and"
                f" at most {_MOST_PREPARED / 1e6:.1f} million are taken. Make it smaller.",
                param=param,
            )
        return made

    def cost(self, arrays: Mapping[str, Array]) -> int:
        """What an image costs, in tokens, at most as much as the longest text: a limit on tokens says nothing of pixels."""
        shape = arrays[self._names[0]].shape
        # Without an axis of colours there are tokens already.
        cost = int(np.prod(shape)) // shape[-3] // _PATCH if len(shape) > 2 else shape[0]
        return max(1, min(cost, self._longest or cost))

    def _prepared(self, image: Image.Image | list[Image.Image]) -> dict[str, Array]:
        made = self.processor([image], return_tensors="np", **self._options)
        return {name: np.asarray(made[name][0]) for name in self._names if name in made}


def most_pixels_of(context: SessionContext) -> int:
    """The most pixels of an image: the model's option `max_pixels`, else 50 million.

    Raises:
        ConfigurationError: if the option is not a whole number above 0.
    """
    card = context.card
    most = context.options.get("max_pixels", card.options.get("max_pixels", MOST_PIXELS))
    if isinstance(most, bool) or not isinstance(most, int) or most < 1:
        raise ConfigurationError(
            f"models.{card.name}.options.max_pixels is {most!r}; it must be a whole number above 0.",
            param=f"models.{card.name}.options.max_pixels",
        )
    return most


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
