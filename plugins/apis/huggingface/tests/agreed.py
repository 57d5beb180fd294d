"""Tasks by the fields that their Structs have in modelport, for the tests of how bodies are mapped to fields."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from modelport.contract.task import Media, Task
from modelport.tasks.text2text import GeneratedText, GenerateParameters
from modelport.tasks.vision import LabelsResult

__all__ = ["TASKS", "Made"]


class _Base(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    pass


class Transcription(_Base):
    inputs: Media
    return_timestamps: bool | Literal["word"] = False
    language: str | None = None
    task: Literal["transcribe", "translate"] = "transcribe"
    prompt: str = ""
    generate_parameters: GenerateParameters = msgspec.field(default_factory=GenerateParameters)


class TimedText(msgspec.Struct):
    text: str
    timestamp: tuple[float, float | None]


class Transcript(msgspec.Struct, kw_only=True):
    text: str
    chunks: list[TimedText] = []
    segments: list[Any] = []
    language: str = ""
    duration: float = 0.0


class Audio(_Base):
    inputs: Media
    top_k: int | None = None
    function_to_apply: Literal["softmax", "sigmoid", "none"] | None = None


class Speech(_Base):
    inputs: str
    voice: str | None = None
    language: str | None = None
    speed: float = 1.0
    format: Literal["wav", "flac", "mp3", "opus", "aac", "pcm"] = "wav"
    generate_parameters: GenerateParameters = msgspec.field(default_factory=GenerateParameters)


class SpeechResult(msgspec.Struct, kw_only=True):
    audio: Media
    sampling_rate: int


class Caption(_Base):
    inputs: Media
    generate_parameters: GenerateParameters = msgspec.field(default_factory=GenerateParameters)


class Captions(msgspec.Struct, kw_only=True):
    results: list[GeneratedText]


class VisualQuestion(_Base):
    image: Media
    question: str
    top_k: int = 5


class Answer(msgspec.Struct, kw_only=True):
    answer: str
    score: float | None = None
    start: int | None = None
    end: int | None = None


class Answers(msgspec.Struct, kw_only=True):
    results: list[Answer]


class DocumentQuestion(_Base):
    image: Media
    question: str
    words: list[str] | None = None
    boxes: list[tuple[int, int, int, int]] | None = None
    top_k: int = 1
    max_answer_len: int = 15
    handle_impossible_answer: bool = False


class Candidates(_Base):
    inputs: Media
    candidate_labels: list[str]
    hypothesis_template: str = "This is a photo of {}."


class TableQuestion(_Base):
    query: str | list[str]
    table: dict[str, list[str]]
    sequential: bool = False


class TableAnswer(msgspec.Struct):
    answer: str
    coordinates: list[tuple[int, int]]
    cells: list[str]
    aggregator: str = ""


class TableAnswers(msgspec.Struct, kw_only=True):
    results: list[TableAnswer]


class Rows(_Base):
    table: dict[str, list[Any]]


class Classes(msgspec.Struct, kw_only=True):
    results: list[str]


class Voices(_Base):
    inputs: Media


class Voice(msgspec.Struct, rename={"content_type": "content-type"}):
    label: str
    content_type: str
    blob: Media


class Separated(msgspec.Struct, kw_only=True):
    results: list[Voice]


class Prompt(_Base):
    inputs: str
    width: int | None = None


class Picture(msgspec.Struct, kw_only=True):
    image: Media


TASKS: dict[str, Task[Any, Any, Any]] = {
    name: Task(name, request, result)
    for name, request, result in (
        ("automatic-speech-recognition", Transcription, Transcript),
        ("audio-classification", Audio, LabelsResult),
        ("text-to-speech", Speech, SpeechResult),
        ("image-to-text", Caption, Captions),
        ("visual-question-answering", VisualQuestion, Answers),
        ("document-question-answering", DocumentQuestion, Answers),
        ("zero-shot-image-classification", Candidates, LabelsResult),
        ("table-question-answering", TableQuestion, TableAnswers),
        ("tabular-classification", Rows, Classes),  # a plugin's own
        ("audio-to-audio", Voices, Separated),
        ("text-to-image", Prompt, Picture),
    )
}


class Made:
    """Results of them."""

    transcript = Transcript(text="hello", chunks=[TimedText("hello", (0.0, 1.5))])
    speech = SpeechResult(audio=Media(data=b"RIFF", mime="audio/wav"), sampling_rate=16000)
    captions = Captions(results=[GeneratedText("a dog")])
    answers = Answers(results=[Answer(answer="yes", score=0.9), Answer(answer="no", score=0.1)])
    table = TableAnswers(results=[TableAnswer("36542", [(0, 1)], ["36542"], "AVERAGE")])
    classes = Classes(results=["7", "5"])
    voices = Separated(results=[Voice("one", "audio/wav", Media(data=b"RIFF"))])
    picture = Picture(image=Media(data=b"\x89PNG", mime="image/png"))
