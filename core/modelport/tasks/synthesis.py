"""The task that turns texts into sound, under the Hub's pipeline tag."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from modelport.contract.errors import InvalidRequest
from modelport.contract.task import Media, Task
from modelport.tasks.text2text import GenerateParameters

__all__ = ["MOST_CHARACTERS", "TEXT_TO_SPEECH", "AudioFormat", "SpeechRequest", "SpeechResult"]

MOST_CHARACTERS = 4096
"""Most characters of one text."""

AudioFormat = Literal["wav", "flac", "mp3", "opus", "aac", "pcm"]


class SpeechRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A text to be spoken.

    Args:
        inputs: The text, at most 4096 characters.
        voice: One of the model's voices, by name; by default its first, or the only one, which `default` names too.
        language: One of the model's languages, as the checkpoint writes it; needed by models of several.
        speed: How fast, 0.25 to 4 times as fast as the model speaks by itself; the pitch stays.
        format: How the sound is encoded, always as one channel. `pcm` is 16-bit little-endian samples at 24 kHz without a header.
        generate_parameters: How chance enters: `seed` repeats an answer, `do_sample` false leaves chance out where a model can,
            `temperature` scales it; models that generate tokens take further ones. Without a seed, answers may differ.
    """

    inputs: str
    voice: str | None = None
    language: str | None = None
    speed: float = 1.0
    format: AudioFormat = "wav"
    generate_parameters: GenerateParameters = msgspec.field(default_factory=GenerateParameters)

    def __post_init__(self) -> None:
        if len(self.inputs) > MOST_CHARACTERS:
            raise InvalidRequest(
                f"inputs has {len(self.inputs)} characters, and a text may have {MOST_CHARACTERS}. Send it in parts.",
                param="inputs",
            )
        if not 0.25 <= self.speed <= 4.0:
            raise InvalidRequest(f"speed is {self.speed:g}; it must be between 0.25 and 4.", param="speed")


class SpeechResult(msgspec.Struct, kw_only=True):
    """The sound: an encoded file with its type, and its samples per second."""

    audio: Media
    sampling_rate: int


TEXT_TO_SPEECH: Task[SpeechRequest, SpeechResult, Any] = Task(
    "text-to-speech", SpeechRequest, SpeechResult, summary="A text spoken"
)
