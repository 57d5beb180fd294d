"""Images to pixels, and what a head says of them to a result."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from modelport.contract import Array, ConfigurationError, InvalidRequest, Item, Session, SessionContext, to_numpy
from modelport.tasks.vision import MOST_FRAMES
from modelport_hf.folder import label_names
from modelport_hf.image_processor import load_image_processor
from modelport_hf.media import decode_image
from modelport_hf.pictures import refuse_long
from modelport_hf.video import decode_video
from modelport_skill_vision import results
from modelport_skill_vision.limits import most_pixels

__all__ = ["VisionSession"]

_USUAL_FRAMES = 16
"""What a model of videos takes whose config.json does not say."""

_IMAGES_OF_A_VIDEO = 4
_PATCH = 256
"""Pixels that cost as much as a token: 16 × 16, a patch of most transformers."""


class VisionSession(Session):
    """One image, or the frames of one video, is one item. Items share a batch only if their pixels have one shape: padding
    would change what a convolution sees at an image's border, and so the answer."""

    def __init__(self, context: SessionContext) -> None:
        super().__init__(context)
        card = context.card
        assert context.program is not None
        self.processor = load_image_processor(context.folder, trust_remote_code=card.trust_remote_code)
        self.answer = results.Answerer(context.task, card, self.processor, label_names(card.config))
        self._specs = context.program.entries["main"].inputs
        self._longest = context.limits.max_length if context.limits else None
        self._most_pixels = most_pixels(context)
        self._refuse_misfit()

    def handle(self, request: Any, run: Any) -> Any:
        """As the default, with the image's size remembered between the two halves."""
        return self._handle(request, run)

    async def _handle(self, request: Any, run: Any) -> Any:
        item, size = await run.cpu(self.prepare, request)
        output = await run.forward("main", item)
        yield await run.cpu(self.finish, request, output, size)

    def prepare(self, request: Any) -> tuple[Item, tuple[int, int]]:
        """The item of a request, and (height, width) of its image.

        Raises:
            InvalidRequest: if the request is wrong, or its image cannot be taken.
        """
        self.answer.check(request)
        image = self._image(request.inputs)
        first = image[0] if isinstance(image, list) else image
        refuse_long(first, self.processor, self._most_pixels, "inputs")
        arrays = self._pixels(image)
        shapes = "; ".join(f"{name} {array.shape}" for name, array in arrays.items())
        shape = arrays[self._specs[0].name].shape
        # Without an axis of colours there are tokens already.
        cost = max(1, int(np.prod(shape)) // shape[-3] // _PATCH) if len(shape) > 2 else shape[0]
        # A limit on tokens, which some configurations of image models have too, says nothing of pixels.
        return Item(arrays, min(cost, self._longest or cost), group=shapes), (first.height, first.width)

    def finish(self, request: Any, output: Mapping[str, Array], size: tuple[int, int]) -> Any:
        """The result of a request from the outputs of its item."""
        return self.answer(request, {name: to_numpy(array) for name, array in output.items()}, size)

    def _image(self, inputs: Any) -> Any:
        """The image, or the frames of a video that the model takes."""
        if "frames" not in self._specs[0].axes:
            return decode_image(inputs, "inputs", self._most_pixels)
        said = self.context.card.config.get("num_frames")
        wanted = said if isinstance(said, int) and said > 0 else None
        if isinstance(inputs, list):
            return self._frames(inputs, wanted or max(len(inputs), 1))
        frames = wanted or _USUAL_FRAMES
        return decode_video(inputs, "inputs", frames=frames, most_pixels=self._most_pixels_of_a_frame(frames))

    def _frames(self, medias: list[Any], wanted: int) -> list[Image.Image]:
        if len(medias) > MOST_FRAMES:
            raise InvalidRequest(
                f"inputs has {len(medias)} frames, and a request holds at most {MOST_FRAMES}. Leave some out.", param="inputs"
            )
        if len(medias) < wanted:
            raise InvalidRequest(
                f"inputs has {len(medias)} frames, and this model takes {wanted}. Send at least so many.", param="inputs"
            )
        chosen = np.linspace(0, len(medias) - 1, wanted).round().astype(int)
        most = self._most_pixels_of_a_frame(wanted)
        frames = [decode_image(medias[index], f"inputs.{index}", most) for index in chosen]
        if len({frame.size for frame in frames}) > 1:
            raise InvalidRequest("The frames have different sizes; send frames of one video.", param="inputs")
        return frames

    def _most_pixels_of_a_frame(self, frames: int) -> int:
        """Together the frames of a video may be four times as large as an image: sixteen of 4K, and no sixteen photographs."""
        return max(1, min(self._most_pixels, _IMAGES_OF_A_VIDEO * self._most_pixels // frames))

    def _pixels(self, image: Any) -> dict[str, Array]:
        try:
            made = self.processor([image], return_tensors="np")
        except (ValueError, ZeroDivisionError, OSError, IndexError) as error:
            why = " ".join(str(error).split())[:200].rstrip(".")
            raise InvalidRequest(
                f"The checkpoint's image processor does not take this image: {why}. Send one of a more usual size.",
                param="inputs",
            ) from error
        return {name: np.asarray(made[name][0]) for name in (spec.name for spec in self._specs) if name in made}

    def _refuse_misfit(self) -> None:
        """Tries the processor on a black image: better to find out now than at the first request."""
        card, spec = self.context.card, self._specs[0]
        blank: Any = Image.new("RGB", (96, 64))
        frames = card.config.get("num_frames", _USUAL_FRAMES) if "frames" in spec.axes else 0
        pixels = self._pixels([blank] * frames if frames else blank).get(spec.name)
        shape = pixels.shape if pixels is not None else ()
        wanted = spec.axes[1:]
        if len(shape) != len(wanted) or any(isinstance(a, int) and a != n for a, n in zip(wanted, shape, strict=True)):
            made = f"pixels of the shape {shape}" if shape else f"no {spec.name}"
            raise ConfigurationError(
                f"The image processor of the model {card.name!r} ({type(self.processor).__name__}) makes {made}, and the skill "
                f"vision takes {wanted}. This {card.model_type or 'kind of'} model is not served by it."
            )
