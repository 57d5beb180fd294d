"""Images and labels to boxes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from types import SimpleNamespace

import numpy as np
from PIL import Image
from scipy.special import expit  # type: ignore[import-untyped,unused-ignore]

from modelport.contract import Array, InputTooLong, InvalidRequest, Item, Run, Session, SessionContext, to_numpy
from modelport.tasks.multimodal import ZeroShotDetectionRequest
from modelport.tasks.vision import Box, DetectedObject, DetectionResult
from modelport_hf.media import MOST_PIXELS
from modelport_hf.pictures import Pictures, shapes
from modelport_skill_multimodal.texts import Texts, nested_config

__all__ = ["GroundingSession", "OwlSession"]

_MOST_SIDE = int(MOST_PIXELS**0.5)


class OwlSession(Session):
    """Every label is an item of one entry, and is kept, so that frequent ones cost nothing; the image with all its labels is an
    item of the other. In company an item has more labels, none of which is found."""

    def __init__(self, context: SessionContext) -> None:
        super().__init__(context)
        self._is_squared = context.card.model_type == "owlv2"
        self.pictures = Pictures(context, ["pixel_values"])
        self.texts = Texts(context, nested_config(context, "text_config"))
        self.pads = self.texts.pads

    async def handle(self, request: ZeroShotDetectionRequest, run: Run) -> AsyncGenerator[DetectionResult, None]:
        image, items, arrays = await run.cpu(self._prepared, request)
        read = await asyncio.gather(*(run.forward("text", item, cache_key=_key(item)) for item in items))
        output = await run.forward("main", await run.cpu(self._asked, arrays, items, read))
        yield await run.cpu(self._found, request, image, output)

    def _prepared(self, request: ZeroShotDetectionRequest) -> tuple[Image.Image, list[Item], dict[str, Array]]:
        items = [self.texts.item(label, f"candidate_labels.{i}") for i, label in enumerate(request.candidate_labels)]
        image = self.pictures.decode(request.inputs, "inputs")
        if self._is_squared and max(image.size) > _MOST_SIDE:
            raise InvalidRequest(
                f"inputs has {image.width} × {image.height} pixels, and this model pads images to squares, of at most"
                f" {_MOST_SIDE} × {_MOST_SIDE}. Make the image smaller.",
                param="inputs",
            )
        return image, items, self.pictures.arrays(image, "inputs")

    def _asked(self, arrays: dict[str, Array], labels: list[Item], read: list[dict[str, Array]]) -> Item:
        # The model takes a label whose first token is 0 for none.
        mask = np.array([to_numpy(label.arrays["input_ids"])[0] > 0 for label in labels], dtype=np.int64)
        embeds = np.stack([to_numpy(each["embedding"]).astype(np.float32, copy=False) for each in read])
        asked: dict[str, Array] = {**arrays, "query_embeds": embeds, "query_mask": mask}
        return Item(asked, self.pictures.cost(arrays), group=shapes(arrays))

    def _found(self, request: ZeroShotDetectionRequest, image: Image.Image, output: Mapping[str, Array]) -> DetectionResult:
        import torch

        # Rows of a batch are views of an array that others read too.
        tensors = {name: torch.from_numpy(np.array(to_numpy(array)[None])) for name, array in output.items()}
        (found,) = self.pictures.processor.post_process_object_detection(
            SimpleNamespace(**tensors), threshold=request.threshold, target_sizes=[(image.height, image.width)]
        )
        scores, labels, boxes = (found[name].numpy() for name in ("scores", "labels", "boxes"))
        return _result([request.candidate_labels[index] for index in labels], scores, boxes)


class GroundingSession(Session):
    """The image and the caption that is made of its labels are one item; it shares a batch with others of the same shapes."""

    def __init__(self, context: SessionContext) -> None:
        super().__init__(context)
        self.pictures = Pictures(context, ["pixel_values", "pixel_mask"])
        texts = Texts(context, nested_config(context, "text_config"))
        most = int(context.card.config.get("max_text_len", 256))
        self.tokenizer, self.limit = texts.tokenizer, min(most, texts.limit or most)

    async def handle(self, request: ZeroShotDetectionRequest, run: Run) -> AsyncGenerator[DetectionResult, None]:
        image, item, owners = await run.cpu(self._prepared, request)
        output = await run.forward("main", item)
        yield await run.cpu(self._found, request, image, owners, output)

    def _prepared(self, request: ZeroShotDetectionRequest) -> tuple[Image.Image, Item, np.ndarray]:
        """The image, the item, and which label each token of the caption belongs to, -1 for none."""
        caption, ends = "", []
        for index, label in enumerate(request.candidate_labels):
            if "." in label:
                raise InvalidRequest(
                    "The label has a full stop, which this model takes for its end. Write it without.",
                    param=f"candidate_labels.{index}",
                )
            caption += (" " if caption else "") + label.strip().lower() + "."
            ends.append(len(caption) - 1)
        (encoding,) = self.tokenizer.windows(caption)
        if len(encoding.ids) > self.limit:
            raise InputTooLong(
                f"The labels have {len(encoding.ids)} tokens together, and this model takes at most {self.limit}. Send fewer in a"
                " request.",
                param="candidate_labels",
            )
        owners = [
            int(np.searchsorted(ends, start, side="left")) if stop > start and start not in ends else -1
            for start, stop in encoding.offsets
        ]
        if missing := set(range(len(ends))).difference(owners):
            raise InvalidRequest(
                "The label has no character that this model reads; write it in words.", param=f"candidate_labels.{min(missing)}"
            )
        ids = np.array(encoding.ids, dtype=np.int64)
        image = self.pictures.decode(request.inputs, "inputs")
        arrays = self.pictures.arrays(image, "inputs")
        arrays["pixel_mask"] = to_numpy(arrays["pixel_mask"]).astype(np.int64)
        texts: dict[str, Array] = {
            "input_ids": ids,
            "token_type_ids": np.zeros_like(ids),
            "attention_mask": np.ones_like(ids),
        }
        return image, Item({**arrays, **texts}, self.pictures.cost(arrays), group=shapes({**arrays, **texts})), np.array(owners)

    def _found(
        self, request: ZeroShotDetectionRequest, image: Image.Image, owners: np.ndarray, output: Mapping[str, Array]
    ) -> DetectionResult:
        """A box's score is its likeness to whichever token; its label is the one that has the likest token."""
        logits, boxes = (to_numpy(output[name]).astype(np.float32) for name in ("logits", "pred_boxes"))
        likeness = expit(logits)
        scores = likeness.max(axis=-1)
        kept = scores > request.threshold
        of_labels = np.stack(
            [likeness[kept][:, : len(owners)][:, owners == index].max(axis=-1, initial=0.0) for index in range(owners.max() + 1)],
            axis=-1,
        )
        labels = [request.candidate_labels[index] for index in of_labels.argmax(axis=-1)]
        centre, size = boxes[kept, :2], boxes[kept, 2:]
        corners = np.concatenate([centre - size / 2, centre + size / 2], axis=-1)
        return _result(labels, scores[kept], corners * np.array([image.width, image.height] * 2, dtype=np.float32))


def _result(labels: list[str], scores: np.ndarray, boxes: np.ndarray) -> DetectionResult:
    """Objects, best first; `boxes` are corners in pixels."""
    order = np.argsort(-scores, kind="stable")
    found = [DetectedObject(labels[i], float(scores[i]), Box(*(int(side) for side in boxes[i]))) for i in order]
    return DetectionResult(results=found)


def _key(item: Item) -> str:
    return to_numpy(item.arrays["input_ids"]).tobytes().hex()
