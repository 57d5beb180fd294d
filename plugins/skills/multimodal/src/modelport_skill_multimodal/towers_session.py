"""Images and texts to embeddings, and their likeness to scores."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import numpy as np
from scipy.special import expit, softmax  # type: ignore[import-untyped,unused-ignore]

from modelport.contract import Array, InvalidRequest, Item, Run, Session, SessionContext, to_numpy
from modelport.tasks.multimodal import ZeroShotImageRequest
from modelport.tasks.text import EmbeddingRequest, EmbeddingResult, LabelScore
from modelport.tasks.vision import ImageFeaturesRequest, ImageFeaturesResult, LabelsResult
from modelport_hf.pictures import Pictures, shapes
from modelport_hf.vectors import inputs_of, refuse_dimensions, shortened, unit
from modelport_skill_multimodal.scalars import read_scalar
from modelport_skill_multimodal.texts import Texts, WholeTexts, nested_config
from modelport_skill_multimodal.towers import kind_of

__all__ = ["TowersSession"]


class TowersSession(Session):
    """An image or a text is an item of its own entry; embeddings of labels are kept, so that frequent ones cost nothing."""

    def __init__(self, context: SessionContext) -> None:
        super().__init__(context)
        kind = kind_of(context.card)
        assert kind is not None
        assert context.program is not None
        self.kind = kind
        image, text = (context.program.entries[name].inputs for name in ("image", "text"))
        self.pictures = Pictures(context, [spec.name for spec in image])
        is_masked = any(spec.name == "attention_mask" for spec in text)
        config = nested_config(context, "qformer_config", "text_config")
        self.texts = (WholeTexts if kind.whole else Texts)(context, config, is_masked=is_masked)
        self.pads = self.texts.pads
        scale = read_scalar(context.folder, kind.scale) if kind.scale else None
        self.scale = 1.0 if scale is None else 1 / scale if kind.inverse else float(np.exp(scale))
        self.bias = read_scalar(context.folder, kind.bias) if kind.bias else 0.0

    def handle(self, request: Any, run: Run) -> AsyncGenerator[Any, None]:
        """Either tower, or both."""
        if isinstance(request, ZeroShotImageRequest):
            return self._classify(request, run)
        return self._embed_image(request, run) if isinstance(request, ImageFeaturesRequest) else self._embed_texts(request, run)

    async def _classify(self, request: ZeroShotImageRequest, run: Run) -> AsyncGenerator[LabelsResult, None]:
        items, image = await run.cpu(self._prepared, request)
        labels = [run.forward("text", item, cache_key=_key(item)) for item in items]
        vector, *vectors = await asyncio.gather(run.forward("image", image), *labels)
        yield await run.cpu(self._scored, request, vector, vectors)

    def _prepared(self, request: ZeroShotImageRequest) -> tuple[list[Item], Item]:
        texts = [request.hypothesis_template.replace("{}", label) for label in request.candidate_labels]
        items = [self.texts.item(text, f"candidate_labels.{index}") for index, text in enumerate(texts)]
        return items, self._image(request.inputs)

    def _scored(self, request: ZeroShotImageRequest, image: dict[str, Array], labels: list[dict[str, Array]]) -> LabelsResult:
        alike = _unit(image) @ np.stack([_unit(label) for label in labels]).T
        if alike.ndim == 2:  # several vectors of one image, of which the likest counts
            alike = alike.max(axis=0)
        logits = alike.astype(np.float64) * self.scale + self.bias
        scores = (expit if self.kind.scores == "sigmoid" else softmax)(logits)
        order = np.argsort(-logits, kind="stable")
        return LabelsResult(results=[LabelScore(request.candidate_labels[i], float(scores[i])) for i in order])

    async def _embed_texts(self, request: EmbeddingRequest, run: Run) -> AsyncGenerator[EmbeddingResult, None]:
        items = await run.cpu(self._items, request)
        vectors = await asyncio.gather(*(run.forward("text", item) for item in items))
        yield await run.cpu(self._embeddings, request, vectors)

    def _items(self, request: EmbeddingRequest) -> list[Item]:
        if request.prompt_name is not None:
            raise InvalidRequest("This model has no prompts: leave prompt_name out.", param="prompt_name")
        refuse_dimensions(request.dimensions)
        side = request.truncation_direction
        return [self.texts.item(value, param, truncate=request.truncate, side=side) for value, param in inputs_of(request.inputs)]

    def _embeddings(self, request: EmbeddingRequest, outputs: list[dict[str, Array]]) -> EmbeddingResult:
        vectors = np.stack([to_numpy(output["embedding"]) for output in outputs]).astype(np.float32, copy=False)
        vectors = shortened(vectors, request.dimensions)
        # Left to the checkpoint, they are of length 1, as the model's own forward makes them.
        return EmbeddingResult(embeddings=np.ascontiguousarray(vectors if request.normalize is False else unit(vectors)))

    async def _embed_image(self, request: ImageFeaturesRequest, run: Run) -> AsyncGenerator[ImageFeaturesResult, None]:
        output = await run.forward("image", await run.cpu(self._image, request.inputs))
        yield ImageFeaturesResult(features=_unit(output))

    def _image(self, media: Any) -> Item:
        arrays = self.pictures.arrays(self.pictures.decode(media, "inputs"), "inputs")
        return Item(arrays, self.pictures.cost(arrays), group=shapes(arrays))


def _key(item: Item) -> str:
    return to_numpy(item.arrays["input_ids"]).tobytes().hex()


def _unit(output: dict[str, Array]) -> np.ndarray:
    """An embedding at length 1."""
    return unit(to_numpy(output["embedding"]).astype(np.float32, copy=False))
