"""Texts to tokens, and what a model makes of them to sound."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

import numpy as np

from modelport.contract import (
    Array,
    InvalidRequest,
    Item,
    ModelFailed,
    Run,
    Session,
    SessionContext,
    UnsupportedParameter,
    to_numpy,
)
from modelport.tasks.synthesis import SpeechRequest, SpeechResult
from modelport.tasks.text2text import GenerateParameters
from modelport_hf.folder import read_json
from modelport_skill_speech.synthesis import kind_of
from modelport_skill_speech.synthesis_audio import encode, stretch
from modelport_skill_speech.synthesis_text import Reader
from modelport_skill_speech.synthesis_voices import Languages, Voices

__all__ = ["SynthesisSession"]

_RATE = 22_050
_RATES = {"speecht5": 16_000}
"""Samples per second of vocoders whose config.json does not say."""


class SynthesisSession(Session):
    """One text is one item, or several if it is too long for one go. No two share a batch."""

    def __init__(self, context: SessionContext) -> None:
        super().__init__(context)
        card = context.card
        kind = kind_of(card)
        assert kind is not None
        self._kind = kind
        config = _config(context)
        self._reader = Reader(context, kind, config)
        self._voices = Voices(context, config)
        self._languages = Languages(context, config, self._reader.tokenizer)
        self._sampling_rate = _sampling_rate(context, config)
        self._most_tokens = _most_tokens(context)

    async def handle(self, request: SpeechRequest, run: Run) -> AsyncGenerator[SpeechResult, None]:
        """One result, when all parts are spoken."""
        items = await run.cpu(self.prepare, request)
        parts = await asyncio.gather(*(self._speak(run, item) for item in items))
        yield await run.cpu(self.finish, request, parts)

    def prepare(self, request: SpeechRequest) -> list[Item]:
        """The items of a text.

        Raises:
            InvalidRequest: if there is nothing to say, or a voice, a language or a parameter that the model does not have.
            InputTooLong: if the text is longer than the model takes, and cannot be cut.
        """
        choice = self._choice(request.generate_parameters)
        voice, of_voice = self._voices.voice(request.voice)
        language, of_language = self._languages.language(request.language)
        common: dict[str, Array] = {**choice, **of_voice, **of_language}
        if self._kind.rate:
            common["rate"] = np.array(request.speed, np.float32)
        parts = self._reader.read(request.inputs, voice, language)
        # The item of the vocoder counts as a token of the text.
        spared = 1 if self._kind.vocoder else 0
        return [_alone({**arrays, **common}, tokens - spared) for arrays, tokens in parts]

    def finish(self, request: SpeechRequest, parts: Sequence[np.ndarray]) -> SpeechResult:
        """The sound of all parts, one after the other, encoded.

        Raises:
            ModelFailed: if there is none.
        """
        waveform = np.concatenate([part.reshape(-1) for part in parts]).astype(np.float32)
        if not waveform.size:
            raise ModelFailed("The model made no sound of this text. Try another seed, or another text.")
        if request.speed != 1.0 and not self._kind.rate:
            waveform = stretch(waveform, self._sampling_rate, request.speed)
        audio, rate = encode(waveform, self._sampling_rate, request.format)
        return SpeechResult(audio=audio, sampling_rate=rate)

    async def _speak(self, run: Run, item: Item) -> np.ndarray:
        made = await run.forward("main", item)
        if self._kind.vocoder:
            made = await run.forward("vocoder", _alone({"spectrogram": to_numpy(made["spectrogram"])}, 1))
        return to_numpy(made["waveform"])

    def _choice(self, given: GenerateParameters) -> dict[str, Array]:
        """How chance enters, as inputs of the model.

        Raises:
            UnsupportedParameter: for a parameter that such models do not have.
            InvalidRequest: for a value that none has.
        """
        named = {name: value for name in given.__struct_fields__ if (value := getattr(given, name)) is not None}
        for name in named:
            if name not in self._kind.parameters:
                takes = ", ".join(self._kind.parameters) or "none"
                raise UnsupportedParameter(
                    f"{name} means nothing to {self.context.card.model_type} models; they take {takes}. Leave it out.",
                    param=f"generate_parameters.{name}",
                )
        seed = named.pop("seed", None)
        chance = secrets.randbits(63) if seed is None and self._kind.random else (seed or 0) % (1 << 63)
        _check(named, self._most_tokens)
        if named.get("temperature") == 0.0:
            named = {**named, "do_sample": False}
        if named.get("do_sample") is False:
            named = {name: value for name, value in named.items() if name not in ("temperature", "top_k", "top_p")}
        if self.context.card.model_type == "vits":
            named = _noise(named)
        types = {bool: np.bool_, int: np.int64, float: np.float32}
        arrays: dict[str, Array] = {name: np.array(value, types[type(value)]) for name, value in named.items()}
        return arrays | {"seed": np.array(chance, np.int64)}


def _alone(arrays: dict[str, Array], cost: int) -> Item:
    """An item that shares no batch: its sound would depend on its neighbours' noise and on the padding."""
    return Item(arrays, max(cost, 1), group=secrets.token_hex(8))


def _noise(named: dict[str, Any]) -> dict[str, float]:
    """What VITS calls the parameters: its noise is scaled as a temperature would, and without chance there is none."""
    if named.get("do_sample") is False:
        return {"noise": 0.0, "duration_noise": 0.0}
    return {"noise": named["temperature"]} if "temperature" in named else {}


def _check(named: dict[str, Any], most_tokens: int) -> None:
    bounds = {
        "temperature": (0.0, 100.0),
        "top_p": (1e-6, 1.0),
        "top_k": (1, 1 << 31),
        "max_new_tokens": (1, most_tokens),
    }
    for name, (low, high) in bounds.items():
        if name in named and not low <= named[name] <= high:
            raise InvalidRequest(
                f"{name} is {named[name]:g}; it must be between {low:g} and {high:g}.", param=f"generate_parameters.{name}"
            )


def _config(context: SessionContext) -> dict[str, Any]:
    """config.json with what it leaves to the defaults of its type."""
    from transformers import AutoConfig

    trust = context.card.trust_remote_code
    whole: dict[str, Any] = AutoConfig.from_pretrained(
        str(context.folder), local_files_only=True, trust_remote_code=trust
    ).to_dict()
    return whole


def _sampling_rate(context: SessionContext, config: Mapping[str, Any]) -> int:
    """Samples per second, from whichever file of the checkpoint says it."""
    folder = context.checkpoints.get("vocoder")
    vocoder = (read_json(folder, "config.json") if folder else None) or {}
    own = read_json(context.folder, "generation_config.json") or {}
    inner = [config.get(name) or {} for name in ("codec_config", "audio_encoder", "vocoder_config")]
    for table in (vocoder, *inner, config, own):
        for name in ("sampling_rate", "sample_rate"):
            if isinstance(table.get(name), int) and table[name] > 0:
                return int(table[name])
    return _RATES.get(context.card.model_type, _RATE)


def _most_tokens(context: SessionContext) -> int:
    """Most tokens that a request may ask for: what the checkpoint generates by itself."""
    own = read_json(context.folder, "generation_config.json") or {}
    own = own.get("semantic_config") or own
    return int(own.get("max_new_tokens") or own.get("max_length") or 1536)
