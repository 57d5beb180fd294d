"""Images into texts by an encoder of images and a decoder of texts: captions, lines of print or handwriting, whole pages."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from typing import Any

import msgspec
import numpy as np

from modelport.contract import (
    GenerateRequest,
    InputTooLong,
    InvalidRequest,
    Media,
    Run,
    Sampling,
    Session,
    SessionContext,
)
from modelport.tasks.multimodal import (
    DocumentAnswer,
    DocumentAnswersResult,
    DocumentQuestionRequest,
    ImageToTextRequest,
    ImageToTextResult,
)
from modelport.tasks.text2text import GeneratedText
from modelport_hf.parameters import most_new_tokens, sampling_of_parameters
from modelport_hf.pictures import Pictures
from modelport_hf.tokenizer import load_tokenizer
from modelport_hf.writing import tokens_of
from modelport_skill_multimodal.options import NEW_TOKENS

__all__ = ["CaptionSession"]

_QUESTION = "<s_docvqa><s_question>{}</s_question><s_answer>"
"""How Donut is asked."""

_DEFAULTS = {field.name: field.default for field in msgspec.structs.fields(DocumentQuestionRequest)}


class CaptionSession(Session):
    """Every image is a generation, which begins with the decoder's first token, or with a question. Images of one size that are
    asked alike run together."""

    def __init__(self, context: SessionContext) -> None:
        super().__init__(context)
        card = context.card
        self._pictures = Pictures(context, ["pixel_values"])
        self.tokenizer = load_tokenizer(context.folder, trust_remote_code=card.trust_remote_code)
        limits = (card.limit, context.limits.max_length if context.limits else None)
        self._longest = min((limit for limit in limits if limit is not None), default=None)
        most = most_new_tokens(context.folder) or NEW_TOKENS
        self._most = most if self._longest is None else max(min(most, self._longest - 1), 1)

    def handle(self, request: Any, run: Run) -> AsyncGenerator[Any, None]:
        """One result."""
        return self._answer(request, run) if isinstance(request, DocumentQuestionRequest) else self._read(request, run)

    async def _read(self, request: ImageToTextRequest, run: Run) -> AsyncGenerator[Any, None]:
        pixels = await run.cpu(self.pixels, request.inputs, "inputs")
        params = sampling_of_parameters(request.generate_parameters, self._most)
        tokens = await self._generate(run, {"pixel_values": pixels}, params)
        yield ImageToTextResult(results=[GeneratedText(self.tokenizer.decode(tokens).strip())])

    async def _answer(self, request: DocumentQuestionRequest, run: Run) -> AsyncGenerator[Any, None]:
        _refuse_reading(request)
        pixels = await run.cpu(self.pixels, request.image, "image")
        asked = self.tokenizer.encode(_QUESTION.format(request.question.replace("<", " ")), special=False).ids
        room = self._most if self._longest is None else min(self._most, self._longest - len(asked))
        if room < 1:
            raise InputTooLong(
                f"The question has {len(asked)} tokens, and this model writes {self._longest} with its answer. Shorten it.",
                param="question",
            )
        inputs = {"pixel_values": pixels, "decoder_input_ids": np.array(asked, np.int64)}
        tokens = await self._generate(run, inputs, Sampling(max_new_tokens=room))
        text = self.tokenizer.decode(tokens, skip_special=False).partition("</s_answer>")[0]
        yield DocumentAnswersResult(results=[DocumentAnswer(re.sub(r"<[^<>]*>", "", text).strip())])

    def pixels(self, media: Media, param: str) -> np.ndarray:
        """The image as the encoder takes it: (channels, height, width) float32.

        Raises:
            InvalidRequest: if it cannot be decoded, or the processor does not take it.
        """
        pixels = self._pictures.arrays(self._pictures.decode(media, param), param)["pixel_values"]
        return np.asarray(pixels, np.float32)

    async def _generate(self, run: Run, inputs: dict[str, np.ndarray], params: Sampling) -> list[int]:
        return await tokens_of(run.generate("main", GenerateRequest(id=0, inputs=inputs, params=params)))


def _refuse_reading(request: DocumentQuestionRequest) -> None:
    """Returns if nothing is asked of a model that writes its answer which only one can do that copies it from a page's words.

    Raises:
        InvalidRequest: naming the field.
    """
    if request.words is not None:
        raise InvalidRequest("This model reads the page by itself. Leave words and boxes out.", param="words")
    for name in ("max_answer_len", "handle_impossible_answer"):
        if getattr(request, name) != _DEFAULTS[name]:
            raise InvalidRequest(f"{name} is for models that copy an answer; this one writes it. Leave it out.", param=name)
