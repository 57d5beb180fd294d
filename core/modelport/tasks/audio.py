"""The built-in tasks that hear, under the Hub's pipeline tags and with the field names of its inference clients."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import msgspec

from modelport.contract.task import Media, Task
from modelport.tasks.labels import refuse_labels
from modelport.tasks.text2text import GenerateParameters
from modelport.tasks.vision import LabelsResult

__all__ = [
    "AUDIO_CLASSIFICATION",
    "AUTOMATIC_SPEECH_RECOGNITION",
    "ZERO_SHOT_AUDIO_CLASSIFICATION",
    "AudioClassificationRequest",
    "TimedText",
    "TranscriptSegment",
    "TranscriptionDelta",
    "TranscriptionRequest",
    "TranscriptionResult",
    "ZeroShotAudioRequest",
    "join_transcription",
    "merge_transcription",
]

# -------------------------------------------------------------------------------------- automatic-speech-recognition


class TranscriptionRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Speech to be written down.

    Args:
        inputs: The sound, as bytes or a data URL.
        return_timestamps: Whether the answer says when what was said: `True` by segments, `"word"` by words. Models that know
            no times refuse it.
        language: The language that is spoken, by its code or its English name; by default the model finds out, if it knows
            several.
        task: `translate` writes down in English what was said in another language, by models that can.
        prompt: Text that could have come before: names and words to expect, and a style to follow.
        generate_parameters: How tokens are chosen.
    """

    inputs: Media
    return_timestamps: bool | Literal["word"] = False
    language: str | None = None
    task: Literal["transcribe", "translate"] = "transcribe"
    prompt: str = ""
    generate_parameters: GenerateParameters = msgspec.field(default_factory=GenerateParameters)


class TimedText(msgspec.Struct):
    """A piece of the text, and its begin and end in seconds; the end is None where the model did not tell."""

    text: str
    timestamp: tuple[float, float | None]


class TranscriptSegment(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What a model that transcribes in segments says of one.

    Args:
        start: Its begin in seconds.
        end: Its end in seconds.
        text: What was said.
        tokens: The model's own, marks of time among them.
        seek: Where the window that it was heard in begins, in frames of 10 ms.
        temperature: With which its tokens were drawn; 0 is greedy.
        avg_logprob: The mean logarithm of its tokens' probability, over the window; None where beams were searched.
        compression_ratio: How much shorter gzip makes the window's text: high where it repeats itself.
        no_speech_prob: How likely the window holds no speech; None where the model has no token for it.
    """

    start: float
    end: float
    text: str
    tokens: list[int]
    seek: int = 0
    temperature: float = 0.0
    avg_logprob: float | None = None
    compression_ratio: float = 0.0
    no_speech_prob: float | None = None


class TranscriptionResult(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What was said.

    Args:
        text: All of it.
        chunks: The text with times, by segments or by words, as was asked.
        segments: The model's segments, if times were asked for and it has them.
        language: The code of the language, where the model knows several.
        duration: Seconds of sound.
    """

    text: str
    chunks: list[TimedText] = []
    segments: list[TranscriptSegment] = []
    language: str = ""
    duration: float = 0.0


class TranscriptionDelta(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What came next; fields as `TranscriptionResult` has them. The last one that tells a language or a duration counts."""

    text: str = ""
    chunks: list[TimedText] = []
    segments: list[TranscriptSegment] = []
    language: str = ""
    duration: float = 0.0


def join_transcription(deltas: Iterable[TranscriptionDelta]) -> TranscriptionResult:
    """The result that a plain request would have got."""
    whole = TranscriptionDelta()
    for delta in deltas:
        whole = merge_transcription(whole, delta)
    return TranscriptionResult(**{name: getattr(whole, name) for name in whole.__struct_fields__})


def merge_transcription(first: TranscriptionDelta, second: TranscriptionDelta) -> TranscriptionDelta:
    """Two deltas that follow each other as one."""
    return TranscriptionDelta(
        text=first.text + second.text,
        chunks=first.chunks + second.chunks,
        segments=first.segments + second.segments,
        language=second.language or first.language,
        duration=second.duration or first.duration,
    )


AUTOMATIC_SPEECH_RECOGNITION: Task[TranscriptionRequest, TranscriptionResult, TranscriptionDelta] = Task(
    "automatic-speech-recognition",
    TranscriptionRequest,
    TranscriptionResult,
    TranscriptionDelta,
    join_transcription,
    merge_transcription,
    summary="Speech to text",
)

# ---------------------------------------------------------------------------------------------- audio-classification


class AudioClassificationRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Sound to label.

    Args:
        inputs: The sound, as bytes or a data URL.
        top_k: The best so many labels, at least 1; `None` gives all.
        function_to_apply: How logits become scores; `None` leaves it to the checkpoint (softmax, or sigmoid for a single label
            and for problems of several labels at once).
    """

    inputs: Media
    top_k: int | None = None
    function_to_apply: Literal["softmax", "sigmoid", "none"] | None = None


AUDIO_CLASSIFICATION: Task[AudioClassificationRequest, LabelsResult, Any] = Task(
    "audio-classification", AudioClassificationRequest, LabelsResult, summary="Sound to labels"
)

# ------------------------------------------------------------------------------------ zero-shot-audio-classification


class ZeroShotAudioRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Sound to be told apart by labels that the caller names.

    Args:
        inputs: The sound, as bytes or a data URL.
        candidate_labels: The labels, from 1 to 1000.
        hypothesis_template: A sentence whose `{}` each label replaces.
    """

    inputs: Media
    candidate_labels: list[str]
    hypothesis_template: str = "This is a sound of {}."

    def __post_init__(self) -> None:
        refuse_labels(self.candidate_labels, self.hypothesis_template)


ZERO_SHOT_AUDIO_CLASSIFICATION: Task[ZeroShotAudioRequest, LabelsResult, Any] = Task(
    "zero-shot-audio-classification", ZeroShotAudioRequest, LabelsResult, summary="Sound to labels that the caller names"
)
