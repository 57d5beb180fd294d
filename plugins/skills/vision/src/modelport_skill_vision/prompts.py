"""Images with points and boxes to masks of what they show; without any, to masks of all there is."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
from collections import defaultdict
from collections.abc import AsyncGenerator, Mapping

import numpy as np

from modelport.contract import Array, InvalidRequest, Item, Run, Session, SessionContext, to_numpy
from modelport.tasks.vision import GeneratedMask, MaskGenerationRequest, MaskGenerationResult
from modelport_hf.media import decode_image, media_bytes, png
from modelport_hf.pictures import most_pixels_of
from modelport_skill_vision.masks import Candidate, grid, sifted, upscaled, without_doubles
from modelport_skill_vision.pixels import PixelRecipe

__all__ = ["MOST_GRID_PIXELS", "MOST_OBJECTS", "PromptSession"]

MOST_OBJECTS = 64
"""Most objects of one request."""

MOST_GRID_PIXELS = 2_000_000
"""Most pixels of an image that is searched by a grid: each of thousands of masks is made as large as it, to be judged."""

_MOST_POINTS = 1024
_MOST_CANDIDATES = 1024
_FARTHEST = 1_000_000
"""Pixels from the image's corner, further than any image reaches: models make infinity of what is much further still."""
_POINTS_AT_ONCE = 64
_PATCH = 256
_SHARES = ("pred_iou_thresh", "stability_score_thresh", "crops_nms_thresh")

Size = tuple[int, int]


class PromptSession(Session):
    """An image is one item of the entry `image`, and its features are kept for further prompts on it. Objects with equally many
    points are one item of `prompt`. Features are handles to the device's memory, so no item has company."""

    def __init__(self, context: SessionContext) -> None:
        super().__init__(context)
        self.recipe = PixelRecipe.of(context.card)
        self._most_pixels = most_pixels_of(context)
        self._alone = itertools.count()

    def handle(self, request: MaskGenerationRequest, run: Run) -> AsyncGenerator[MaskGenerationResult, None]:
        """Encodes, then decodes."""
        return self._handle(request, run)

    async def _handle(self, request: MaskGenerationRequest, run: Run) -> AsyncGenerator[MaskGenerationResult, None]:
        item, key, size = await run.cpu(self.prepare, request)
        features = await run.forward("image", item, cache_key=key)
        if request.points is None and request.boxes is None:
            yield await self._search(request, run, features, size)
            return
        groups = self._prompts(request, features, size)
        outputs = await asyncio.gather(*(run.forward("prompt", prompt) for _, prompt in groups))
        found: dict[int, list[GeneratedMask]] = {}
        for (objects, _), output in zip(groups, outputs, strict=True):
            for place, index in enumerate(objects):  # one by one: a large mask takes a while, in which the caller may leave
                found[index] = await run.cpu(self.masks, request, output, place, size)
        yield MaskGenerationResult(results=[mask for index in sorted(found) for mask in found[index]])

    def prepare(self, request: MaskGenerationRequest) -> tuple[Item, str, Size]:
        """The image's item, a name of its bytes, and its (height, width).

        Raises:
            InvalidRequest: if the request is wrong, or its image cannot be taken.
        """
        _check(request)
        image = decode_image(request.inputs, "inputs", self._most_pixels)
        size = (image.height, image.width)
        if request.points is None and request.boxes is None and image.width * image.height > MOST_GRID_PIXELS:
            raise InvalidRequest(
                f"The image has {image.width} × {image.height} pixels, and only images of at most"
                f" {MOST_GRID_PIXELS / 1e6:g} million are searched for all objects. Send points or boxes, or a smaller image.",
                param="points",
            )
        pixels = self.recipe.pixels(image)
        item = self._item({"pixel_values": pixels}, pixels[0].size // _PATCH)
        return item, hashlib.sha256(media_bytes(request.inputs)).hexdigest(), size

    def masks(self, request: MaskGenerationRequest, output: Mapping[str, Array], place: int, size: Size) -> list[GeneratedMask]:
        """The model's guesses at the object that has this place in its item."""
        masks, scores = to_numpy(output["pred_masks"])[place], to_numpy(output["iou_scores"])[place]
        return [self._mask(small, float(score), request, size) for small, score in zip(masks, scores, strict=True)]

    async def _search(
        self, request: MaskGenerationRequest, run: Run, features: Mapping[str, Array], size: Size
    ) -> MaskGenerationResult:
        points = self.recipe.scaled(grid(request.points_per_crop, size), size)
        found: list[Candidate] = []
        for start in range(0, len(points), _POINTS_AT_ONCE):
            some = points[start : start + _POINTS_AT_ONCE, None].astype(np.float32)
            arrays: dict[str, Array] = {"input_points": some, "input_labels": np.ones(some.shape[:2], dtype=np.int64)}
            output = await run.forward("prompt", self._item({**features, **arrays}, len(some)))
            found += await run.cpu(self._sifted, request, output, size)
            found = sorted(found, key=lambda candidate: -candidate.score)[:_MOST_CANDIDATES]
        best = await run.cpu(without_doubles, found, request.crops_nms_thresh)
        return MaskGenerationResult(results=[await run.cpu(self._mask, each.logits, each.score, request, size) for each in best])

    def _sifted(self, request: MaskGenerationRequest, output: Mapping[str, Array], size: Size) -> list[Candidate]:
        masks, scores = to_numpy(output["pred_masks"]), to_numpy(output["iou_scores"])
        return sifted(
            masks.reshape(-1, *masks.shape[-2:]),
            scores.reshape(-1),
            self.recipe,
            size,
            threshold=request.mask_threshold,
            least_score=request.pred_iou_thresh,
            least_stability=request.stability_score_thresh,
            offset=request.stability_score_offset,
        )

    def _mask(self, logits: np.ndarray, score: float, request: MaskGenerationRequest, size: Size) -> GeneratedMask:
        inside = upscaled(logits, self.recipe, size) > request.mask_threshold
        return GeneratedMask(png(np.where(inside, np.uint8(255), np.uint8(0))), score)

    def _prompts(self, request: MaskGenerationRequest, features: Mapping[str, Array], size: Size) -> list[tuple[list[int], Item]]:
        """The objects of each item with it: padding would count as a point, so those with equally many points go together."""
        groups: dict[int, list[int]] = defaultdict(list)
        for index in range(len(request.points or request.boxes or ())):
            groups[len(request.points[index]) if request.points else 0].append(index)
        return [(objects, self._prompt(request, features, objects, count, size)) for count, objects in groups.items()]

    def _prompt(
        self, request: MaskGenerationRequest, features: Mapping[str, Array], objects: list[int], count: int, size: Size
    ) -> Item:
        arrays: dict[str, Array] = dict(features)
        if request.points is not None:
            points = self.recipe.scaled([request.points[index] for index in objects], size)
            labels = [request.labels[index] for index in objects] if request.labels else np.ones((len(objects), count))
            arrays |= {"input_points": points.astype(np.float32), "input_labels": np.asarray(labels, dtype=np.int64)}
        if request.boxes is not None:
            corners = np.array([request.boxes[index] for index in objects]).reshape(-1, 2, 2)
            arrays["input_boxes"] = self.recipe.scaled(corners, size).reshape(-1, 4).astype(np.float32)
        return self._item(arrays, len(objects) * max(count, 1))

    def _item(self, arrays: dict[str, Array], cost: int) -> Item:
        longest = self.context.limits.max_length if self.context.limits else None
        return Item(arrays, max(1, min(cost, longest or cost)), group=f"alone {next(self._alone)}")


def _check(request: MaskGenerationRequest) -> None:
    """Returns if the options and prompts of a request can be honoured.

    Raises:
        InvalidRequest: naming the field.
    """
    for name in _SHARES:
        if not 0 <= getattr(request, name) <= 1:
            raise InvalidRequest(f"{name} is {getattr(request, name)}; it must be from 0 to 1.", param=name)
    if not 1 <= request.points_per_crop <= 32:
        raise InvalidRequest(f"points_per_crop is {request.points_per_crop}; it must be from 1 to 32.", param="points_per_crop")
    for name in ("points", "boxes"):
        prompts = getattr(request, name)
        if prompts is None:
            continue
        if not prompts or len(prompts) > MOST_OBJECTS:
            raise InvalidRequest(f"{name} is for {len(prompts)} objects; send 1 to {MOST_OBJECTS}.", param=name)
        if not all(abs(number) <= _FARTHEST for prompt in prompts for number in np.ravel(prompt)):
            raise InvalidRequest(
                f"{name} holds a number that is not within ±{_FARTHEST:,}; give pixels of the image.", param=name
            )
    if request.points is not None:
        _check_points(request)
    elif request.labels is not None:
        raise InvalidRequest("labels is for points, and there are none. Send points too.", param="labels")
    if request.points is not None and request.boxes is not None and len(request.points) != len(request.boxes):
        raise InvalidRequest(
            f"points is for {len(request.points)} objects and boxes for {len(request.boxes)}; send one box for each object.",
            param="boxes",
        )


def _check_points(request: MaskGenerationRequest) -> None:
    points = request.points or []
    counts = [len(each) for each in points]
    if 0 in counts or sum(counts) > _MOST_POINTS:
        raise InvalidRequest(
            f"points holds {sum(counts)} points; give each object at least one, and at most {_MOST_POINTS} in all.",
            param="points",
        )
    if request.labels is not None and [len(each) for each in request.labels] != counts:
        raise InvalidRequest("labels does not have one number for each point; give as many lists, as long.", param="labels")
