"""Tasks with files, modelport's own and three that a plugin might bring, and results of them."""

from __future__ import annotations

from typing import Any

import msgspec

from modelport.contract.task import Media, Task
from modelport.tasks import audio, multimodal, synthesis, table
from modelport.tasks.text2text import GeneratedText

__all__ = ["TASKS", "Made"]


class Rows(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    table: dict[str, list[Any]]


class Classes(msgspec.Struct, kw_only=True):
    results: list[str]


class Voices(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    inputs: Media


class Voice(msgspec.Struct, rename={"content_type": "content-type"}):
    label: str
    content_type: str
    blob: Media


class Separated(msgspec.Struct, kw_only=True):
    results: list[Voice]


class Prompt(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    inputs: str
    width: int | None = None


class Picture(msgspec.Struct, kw_only=True):
    image: Media


TASKS: dict[str, Task[Any, Any, Any]] = {
    task.name: task
    for task in (
        audio.AUTOMATIC_SPEECH_RECOGNITION,
        audio.AUDIO_CLASSIFICATION,
        synthesis.TEXT_TO_SPEECH,
        multimodal.IMAGE_TO_TEXT,
        multimodal.VISUAL_QUESTION_ANSWERING,
        multimodal.DOCUMENT_QUESTION_ANSWERING,
        multimodal.ZERO_SHOT_IMAGE_CLASSIFICATION,
        table.TABLE_QUESTION_ANSWERING,
        Task("tabular-classification", Rows, Classes),
        Task("audio-to-audio", Voices, Separated),
        Task("text-to-image", Prompt, Picture),
    )
}


class Made:
    """Results of them."""

    transcript = audio.TranscriptionResult(text="hello", chunks=[audio.TimedText("hello", (0.0, 1.5))])
    speech = synthesis.SpeechResult(audio=Media(data=b"RIFF", mime="audio/wav"), sampling_rate=16000)
    captions = multimodal.ImageToTextResult(results=[GeneratedText("a dog")])
    answers = multimodal.VisualAnswersResult(results=[multimodal.VisualAnswer("yes", 0.9), multimodal.VisualAnswer("no", 0.1)])
    readings = multimodal.DocumentAnswersResult(
        results=[multimodal.DocumentAnswer("yes", 0.9), multimodal.DocumentAnswer("no", 0.1)]
    )
    table = table.TableAnswersResult(
        results=[table.TableAnswer(answer="36542", coordinates=[(0, 1)], cells=["36542"], aggregator="AVERAGE")]
    )
    classes = Classes(results=["7", "5"])
    voices = Separated(results=[Voice("one", "audio/wav", Media(data=b"RIFF"))])
    picture = Picture(image=Media(data=b"\x89PNG", mime="image/png"))
