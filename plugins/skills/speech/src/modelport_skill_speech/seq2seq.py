"""Speech to text by encoder-decoders that hear a recording whole: Speech2Text, Moonshine, SpeechT5, and models of two parts."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import numpy as np

from modelport.contract import (
    GenerateRequest,
    InvalidRequest,
    Run,
    Session,
    SessionContext,
)
from modelport.tasks.audio import TranscriptionDelta, TranscriptionRequest, join_transcription
from modelport_hf.folder import read_json
from modelport_hf.own_tokenizer import load_own_tokenizer
from modelport_hf.parameters import most_new_tokens, sampling_of_parameters
from modelport_hf.writing import tokens_of
from modelport_skill_speech.sound import Ear

__all__ = ["Seq2SeqSession"]

_MOST_SECONDS = 60.0
"""These models were trained on sentences; longer sound is to be cut by who knows where."""


class Seq2SeqSession(Session):
    """A recording is one generation."""

    def __init__(self, context: SessionContext) -> None:
        super().__init__(context)
        self._ear = Ear(context, _MOST_SECONDS)
        self._tokenizer = load_own_tokenizer(context.folder, trust_remote_code=context.card.trust_remote_code)
        own = read_json(context.folder, "generation_config.json") or {}
        self._codes = {str(code): int(token) for code, token in (own.get("text_decoder_lang_to_code_id") or {}).items()}
        self._most = most_new_tokens(context.folder)

    async def handle(self, request: TranscriptionRequest, run: Run) -> AsyncGenerator[Any, None]:
        """One delta, when the recording is done."""
        inputs, seconds = await run.cpu(self.prepare, request)
        params = sampling_of_parameters(request.generate_parameters, self._most)
        tokens = await tokens_of(run.generate("main", GenerateRequest(id=0, inputs=inputs, params=params)))
        text = str(await run.cpu(self._text, tokens))
        delta = TranscriptionDelta(text=text, duration=seconds)
        yield delta if run.stream else join_transcription([delta])

    def prepare(self, request: TranscriptionRequest) -> tuple[dict[str, np.ndarray], float]:
        """The inputs of a generation, and the seconds of sound.

        Raises:
            InvalidRequest: if the request is wrong, or its sound cannot be taken.
        """
        if request.return_timestamps:
            raise InvalidRequest("This model knows no times; leave it out.", param="return_timestamps")
        if request.prompt:
            raise InvalidRequest("prompt: this model takes none; leave it out.", param="prompt")
        if request.task != "transcribe":
            raise InvalidRequest("task: this model does what it was trained for, and cannot be told.", param="task")
        samples = self._ear.samples(request.inputs)
        inputs = self._ear.arrays(samples)
        if self._codes:
            if request.language not in self._codes:
                known = ", ".join(sorted(self._codes))
                raise InvalidRequest(f"language is {request.language!r}, and this model writes {known}.", param="language")
            inputs["decoder_input_ids"] = np.array([self._codes[request.language]], np.int64)
        elif request.language is not None:
            raise InvalidRequest("language: this model cannot be told one; leave it out.", param="language")
        return inputs, len(samples) / self._ear.rate

    def _text(self, tokens: list[int]) -> str:
        return str(self._tokenizer.decode(tokens, skip_special_tokens=True))
