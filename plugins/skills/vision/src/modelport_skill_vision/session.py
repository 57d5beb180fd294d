"""Images to pixels, and what a head says of them to a result."""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any

import numpy as np
from PIL import Image

from modelport.contract import Array, ArraySpec, ConfigurationError, InvalidRequest, Item, Run, Session, SessionContext, to_numpy
from modelport.tasks.vision import MOST_FRAMES
from modelport_hf.folder import label_names
from modelport_hf.media import decode_image
from modelport_hf.pictures import Pictures, shapes
from modelport_hf.video import decode_video
from modelport_skill_vision import results

__all__ = ["VisionSession"]

_USUAL_FRAMES = 16
"""What a model of videos takes whose config.json does not say."""

_IMAGES_OF_A_VIDEO = 4


class VisionSession(Session):
    """One image, or the frames of one video, is one item. Items share a batch only if their pixels have one shape: padding
    would change what a convolution sees at an image's border, and so the answer."""

    def __init__(self, context: SessionContext) -> None:
        super().__init__(context)
        card = context.card
        assert context.program is not None
        specs = context.program.entries["main"].inputs
        self._takes_videos = "frames" in specs[0].axes
        said = card.config.get("num_frames")
        self._frames_wanted = said if isinstance(said, int) and said > 0 else None
        frames = (self._frames_wanted or _USUAL_FRAMES) if self._takes_videos else 0
        self._pictures = Pictures(context, [spec.name for spec in specs], may_lack=("pixel_mask",), frames=frames)
        self._refuse_misfit(specs[0])
        self.answer = results.Answerer(context.task, card, self._pictures.processor, label_names(card.config))

    def handle(self, request: Any, run: Run) -> AsyncGenerator[Any, None]:
        """As the default, with the image's size remembered between the two halves."""
        return self._handle(request, run)

    async def _handle(self, request: Any, run: Run) -> AsyncGenerator[Any, None]:
        gone = threading.Event()
        try:
            item, size = await run.cpu(self.prepare, request, gone.is_set)
        finally:
            gone.set()  # a thread that still decodes a video then does it for nobody
        output = await run.forward("main", item)
        yield await run.cpu(self.finish, request, output, size)

    def prepare(self, request: Any, is_unwanted: Callable[[], bool] = lambda: False) -> tuple[Item, tuple[int, int]]:
        """The item of a request, and (height, width) of its image. A long video is let go of once it `is_unwanted`.

        Raises:
            InvalidRequest: if the request is wrong, or its image cannot be taken.
        """
        self.answer.check(request)
        image = self._image(request.inputs, is_unwanted)
        first = image[0] if isinstance(image, list) else image
        arrays = self._pictures.arrays(image, "inputs")
        return Item(arrays, self._pictures.cost(arrays), group=shapes(arrays)), (first.height, first.width)

    def finish(self, request: Any, output: Mapping[str, Array], size: tuple[int, int]) -> Any:
        """The result of a request from the outputs of its item."""
        return self.answer(request, {name: to_numpy(array) for name, array in output.items()}, size)

    def _image(self, inputs: Any, is_unwanted: Callable[[], bool]) -> Image.Image | list[Image.Image]:
        """The image, or the frames of a video that the model takes."""
        if not self._takes_videos:
            return self._pictures.decode(inputs, "inputs")
        if isinstance(inputs, list):
            return self._frames(inputs, self._frames_wanted or max(len(inputs), 1))
        frames = self._frames_wanted or _USUAL_FRAMES
        most = self._most_pixels_of_a_frame(frames)
        return decode_video(inputs, "inputs", frames=frames, most_pixels=most, is_unwanted=is_unwanted)

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
        most = self._pictures.most_pixels
        return max(1, min(most, _IMAGES_OF_A_VIDEO * most // frames))

    def _refuse_misfit(self, spec: ArraySpec) -> None:
        """Compares what the processor makes with what the program takes: better to find out now than at the first request."""
        card, wanted = self.context.card, spec.axes[1:]
        shape = self._pictures.tried[spec.name].shape
        if len(shape) != len(wanted) or any(isinstance(a, int) and a != n for a, n in zip(wanted, shape, strict=True)):
            name = type(self._pictures.processor).__name__
            raise ConfigurationError(
                f"The image processor of the model {card.name!r} ({name}) makes pixels of the shape {shape}, and the skill vision"
                f" takes {wanted}. This {card.model_type or 'kind of'} model is not served by it."
            )
