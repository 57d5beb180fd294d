"""Texts become prompts of the encoder, and what the decoder generates texts again."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator
from typing import Any

import numpy as np

from modelport.contract import (
    ConfigurationError,
    GenerateRequest,
    InputTooLong,
    InvalidRequest,
    Run,
    Session,
    SessionContext,
)
from modelport.tasks.text2text import (
    GeneratedText,
    SummarizationResult,
    Summary,
    Text2TextRequest,
    Text2TextResult,
    Translation,
    TranslationResult,
)
from modelport_hf.own_tokenizer import load_own_tokenizer
from modelport_hf.parameters import most_new_tokens, sampling_of_parameters
from modelport_hf.writing import tokens_of
from modelport_skill_text2text.languages import Languages, Telling

__all__ = ["Text2TextSession"]

_UNBOUNDED = 10**9  # transformers writes 10**30 for a tokenizer without a limit


class Text2TextSession(Session):
    """Every text of a request is a generation of its own; they run beside each other."""

    def __init__(self, context: SessionContext) -> None:
        super().__init__(context)
        card = context.card
        self.tokenizer = load_own_tokenizer(context.folder, trust_remote_code=context.card.trust_remote_code)
        self._languages = Languages(self.tokenizer, card.config)
        self._lock = threading.Lock()  # a tokenizer is set to a source language for the length of a call
        self._start = card.config.get("decoder_start_token_id")
        self._most = most_new_tokens(context.folder)
        limits = (card.limit, context.limits.max_length if context.limits else None, self.tokenizer.model_max_length)
        self._longest = min((n for n in limits if n is not None and n < _UNBOUNDED), default=None)

    async def handle(self, request: Text2TextRequest, run: Run) -> AsyncGenerator[Any, None]:
        """One result, when all texts are done."""
        prompts = await run.cpu(self.prepare, request, run.task)
        params = sampling_of_parameters(request.generate_parameters, self._most)
        requests = [GenerateRequest(id=0, inputs=prompt, params=params) for prompt in prompts]
        made = await asyncio.gather(*(tokens_of(run.generate("main", each)) for each in requests))
        yield await run.cpu(self.finish, request, run.task, made)

    def prepare(self, request: Text2TextRequest, task: str) -> list[dict[str, np.ndarray]]:
        """The inputs of each text's generation.

        Raises:
            InvalidRequest: if there is no text, or a language that the model does not know.
            InputTooLong: if a text is longer than the model takes, and may not be cut.
        """
        texts = [request.inputs] if isinstance(request.inputs, str) else request.inputs
        if not texts:
            raise InvalidRequest("inputs is empty; give at least one text.", param="inputs")
        languages = getattr(request, "src_lang", None), getattr(request, "tgt_lang", None)
        telling = self._languages.tell(task, *languages)
        cut = request.truncation != "do_not_truncate"
        found = []
        for index, text in enumerate(texts):
            param = "inputs" if isinstance(request.inputs, str) else f"inputs.{index}"
            ids = self._encode(telling, text, cut)
            if self._longest is not None and len(ids) > self._longest:
                raise InputTooLong(
                    f"{param} has {len(ids)} tokens, and this model takes {self._longest}. Shorten it, or set truncation to "
                    "longest_first.",
                    param=param,
                )
            if not ids:
                raise InvalidRequest(f"{param} has no tokens; give a text.", param=param)
            found.append(self._inputs(ids, telling))
        return found

    def finish(self, request: Text2TextRequest, task: str, made: list[list[int]]) -> Any:
        """The result from the tokens of each text."""
        texts = [
            self.tokenizer.decode(
                ids, skip_special_tokens=True, clean_up_tokenization_spaces=request.clean_up_tokenization_spaces
            )
            for ids in made
        ]
        if task == "translation":
            return TranslationResult(results=[Translation(text) for text in texts])
        if task == "summarization":
            return SummarizationResult(results=[Summary(text) for text in texts])
        return Text2TextResult(results=[GeneratedText(text) for text in texts])

    def _encode(self, telling: Telling, text: str, cut: bool) -> list[int]:
        options: dict[str, Any] = {"truncation": True, "max_length": self._longest} if cut and self._longest else {}
        with self._lock:
            if telling.source is None:
                return list(self.tokenizer(telling.prefix + text, verbose=False, **options)["input_ids"])
            before = self.tokenizer.src_lang
            self.tokenizer.src_lang = telling.source
            try:
                return list(self.tokenizer(telling.prefix + text, verbose=False, **options)["input_ids"])
            finally:
                self.tokenizer.src_lang = before

    def _inputs(self, ids: list[int], telling: Telling) -> dict[str, np.ndarray]:
        inputs = {"input_ids": np.array(ids, np.int64)}
        if telling.first is not None:
            if self._start is None:
                raise ConfigurationError("config.json names no decoder_start_token_id, from which a translation begins.")
            inputs["decoder_input_ids"] = np.array([self._start, telling.first], np.int64)
        return inputs
