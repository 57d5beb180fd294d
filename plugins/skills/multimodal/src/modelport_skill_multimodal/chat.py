"""Conversations with images, and what else such a model is asked: to describe an image, to answer a question about it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import msgspec

from modelport.contract import (
    GenerateRequest,
    Media,
    Run,
    Sampling,
    SessionContext,
)
from modelport.tasks.multimodal import (
    ImageToTextRequest,
    ImageToTextResult,
    VisualAnswer,
    VisualAnswersResult,
    VisualQuestionRequest,
)
from modelport.tasks.text2text import GeneratedText, GenerateParameters
from modelport_hf.chat import load_chat_templates
from modelport_hf.generation import GenerationSession
from modelport_hf.media import MOST_PIXELS
from modelport_hf.parameters import most_new_tokens, sampling_of_parameters
from modelport_hf.processor import load_processor
from modelport_hf.prompt import Prompt
from modelport_hf.writing import tokens_of
from modelport_skill_multimodal.chat_prompt import ImagePrompter
from modelport_skill_multimodal.options import NEW_TOKENS, whole_number

__all__ = ["ChatSession"]

MOST_IMAGES = 32
"""Most images of a request; `options.max_images` sets another number."""

_DESCRIBE = "Describe this image."
_ASK_TO_DESCRIBE = {
    "instructblip": "Write a short description of the image.",
    "paligemma": "caption en",
    "kosmos-2": "<grounding>An image of",
    "florence2": "<CAPTION>",
}
_ASK = {
    "blip-2": "Question: {} Answer:",
    "kosmos-2": "<grounding>Question: {} Answer:",
    "paligemma": "answer en {}",
}
"""How models that have no chat template are asked, by the notes of those who trained them; others get the question alone."""


class ChatSession(GenerationSession):
    """As any conversation, with images. Captions and answers are conversations of one turn."""

    prompter: ImagePrompter

    def __init__(self, context: SessionContext) -> None:
        self._processor = load_processor(context.folder, trust_remote_code=context.card.trust_remote_code)
        super().__init__(context)
        # BLIP's writer ends with a token that its generation_config.json does not name.
        end = (context.card.config.get("text_config") or {}).get("sep_token_id") if context.card.model_type == "blip" else None
        self._ends = None if end is None else [int(end)]
        self._most = most_new_tokens(context.folder) or NEW_TOKENS

    def make_prompter(self, tool_parser: str | None) -> ImagePrompter:
        """One that takes images too."""
        card = self.context.card
        extra = {
            name: str(token)
            for name, token in (getattr(self._processor.tokenizer, "special_tokens_map", None) or {}).items()
            if isinstance(token, str)
        }
        mark = card.config.get("image_token_id", card.config.get("image_token_index"))
        return ImagePrompter(
            card.name,
            self.tokenizer,
            load_chat_templates(self.context.folder, {**extra, **self.tokenizer.special}, of_processor=True),
            self.limit,
            tool_parser,
            processor=self._processor,
            mark_id=mark if isinstance(mark, int) else None,
            most_images=whole_number(self.context, "max_images", MOST_IMAGES),
            most_pixels=whole_number(self.context, "max_pixels", MOST_PIXELS),
        )

    def handle(self, request: Any, run: Run) -> AsyncGenerator[Any, None]:
        """Deltas of a conversation, or the one result of another task."""
        if isinstance(request, ImageToTextRequest):
            return self._describe(request, run)
        if isinstance(request, VisualQuestionRequest):
            return self._answer(request, run)
        return super().handle(request, run)

    def engine_request(self, prompt: Prompt, params: Sampling, **more: Any) -> GenerateRequest:
        """As for text, and where it ends for models that do not say so themselves."""
        if self._ends and params.eos_token_id is None:
            params = msgspec.structs.replace(params, eos_token_id=self._ends)
        return super().engine_request(prompt, params, **more)

    async def _describe(self, request: ImageToTextRequest, run: Run) -> AsyncGenerator[Any, None]:
        text = _ASK_TO_DESCRIBE.get(self.context.card.model_type, _DESCRIBE if self.prompter.converses else "")
        made = await self._write(run, request.inputs, "inputs", text, request.generate_parameters)
        yield ImageToTextResult(results=[GeneratedText(made)])

    async def _answer(self, request: VisualQuestionRequest, run: Run) -> AsyncGenerator[Any, None]:
        text = _ASK.get(self.context.card.model_type, "{}").format(request.question)
        made = await self._write(run, request.image, "image", text, GenerateParameters())
        yield VisualAnswersResult(results=[VisualAnswer(made)])

    async def _write(self, run: Run, image: Media, param: str, text: str, given: GenerateParameters) -> str:
        """What the model writes after one image and a text."""
        params = sampling_of_parameters(given, None)
        prompt = await run.cpu(self.prompter.about, image, param, text, params.max_new_tokens)
        if params.max_new_tokens is None:
            params = msgspec.structs.replace(params, max_new_tokens=min(prompt.max_new_tokens, self._most))
        tokens = await tokens_of(run.generate("main", self.engine_request(prompt, params)))
        return self.tokenizer.decode(tokens).strip()
