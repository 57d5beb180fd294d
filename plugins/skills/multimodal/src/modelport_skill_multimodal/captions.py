"""Images into texts by an encoder of images and a decoder of texts: captions, lines of print or handwriting, whole pages."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from typing import Any

import numpy as np

from modelport.contract import GenerateRequest, InvalidRequest, Media, ModelFailed, Run, Sampling, Session, SessionContext
from modelport.tasks.multimodal import (
    DocumentAnswer,
    DocumentAnswersResult,
    DocumentQuestionRequest,
    ImageToTextRequest,
    ImageToTextResult,
)
from modelport.tasks.text2text import GeneratedText
from modelport_hf.image_processor import load_image_processor
from modelport_hf.media import MOST_PIXELS, decode_image
from modelport_hf.parameters import most_new_tokens, sampling_of_parameters
from modelport_hf.tokenizer import load_tokenizer
from modelport_skill_multimodal.options import NEW_TOKENS, whole_number

__all__ = ["CaptionSession"]

_QUESTION = "<s_docvqa><s_question>{}</s_question><s_answer>"
"""How Donut is asked."""


class CaptionSession(Session):
    """Every image is a generation, which begins with the decoder's first token, or with a question. Images of one size that are
    asked alike run together."""

    def __init__(self, context: SessionContext) -> None:
        super().__init__(context)
        card = context.card
        self.processor = load_image_processor(context.folder, trust_remote_code=card.trust_remote_code)
        self.tokenizer = load_tokenizer(context.folder, trust_remote_code=card.trust_remote_code)
        self._most_pixels = whole_number(context, "max_pixels", MOST_PIXELS)
        limits = (card.limit, context.limits.max_length if context.limits else None)
        most = min((limit for limit in limits if limit is not None), default=NEW_TOKENS) - 1
        self._most = min(most_new_tokens(context.folder) or NEW_TOKENS, max(most, 1))

    def handle(self, request: Any, run: Run) -> AsyncGenerator[Any, None]:
        """One result."""
        return self._answer(request, run) if isinstance(request, DocumentQuestionRequest) else self._read(request, run)

    async def _read(self, request: ImageToTextRequest, run: Run) -> AsyncGenerator[Any, None]:
        pixels = await run.cpu(self.pixels, request.inputs, "inputs")
        params = sampling_of_parameters(request.generate_parameters, self._most)
        tokens = await self._generate(run, {"pixel_values": pixels}, params)
        yield ImageToTextResult(results=[GeneratedText(self.tokenizer.decode(tokens).strip())])

    async def _answer(self, request: DocumentQuestionRequest, run: Run) -> AsyncGenerator[Any, None]:
        if not request.question.strip():
            raise InvalidRequest("question is empty; ask something.", param="question")
        if request.words is not None or request.boxes is not None:
            given = "words" if request.words is not None else "boxes"
            raise InvalidRequest(f"This model reads the page by itself. Leave {given} out.", param=given)
        pixels = await run.cpu(self.pixels, request.image, "image")
        asked = self.tokenizer.encode(_QUESTION.format(request.question.replace("<", " ")), special=False).ids
        inputs = {"pixel_values": pixels, "decoder_input_ids": np.array(asked, np.int64)}
        room = max(self._most - len(asked), 1)
        tokens = await self._generate(run, inputs, Sampling(max_new_tokens=room))
        text = self.tokenizer.decode(tokens, skip_special=False).partition("</s_answer>")[0]
        yield DocumentAnswersResult(results=[DocumentAnswer(re.sub(r"<[^<>]*>", "", text).strip())])

    def pixels(self, media: Media, param: str) -> np.ndarray:
        """The image as the encoder takes it: (channels, height, width) float32.

        Raises:
            InvalidRequest: if it cannot be decoded, or the processor does not take it.
        """
        image = decode_image(media, param, self._most_pixels)
        try:
            return np.asarray(self.processor([image], return_tensors="np")["pixel_values"][0], np.float32)
        except (ValueError, ZeroDivisionError, OSError, IndexError) as error:
            why = " ".join(str(error).split())[:200].rstrip(".")
            raise InvalidRequest(
                f"The checkpoint's image processor does not take this image: {why}. Send one of a more usual size.", param=param
            ) from error

    async def _generate(self, run: Run, inputs: dict[str, np.ndarray], params: Sampling) -> list[int]:
        tokens: list[int] = []
        async for event in run.generate("main", GenerateRequest(id=0, inputs=inputs, params=params)):
            if event.finish == "error":
                raise ModelFailed(event.error or "The model failed while it was generating.")
            tokens += event.tokens
        return tokens
