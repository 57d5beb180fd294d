"""POST /v1/audio/transcriptions and /v1/audio/translations."""

from __future__ import annotations

import time
from typing import Annotated, Any, Literal

import msgspec
from litestar import Response, post
from msgspec import UNSET, Meta, UnsetType

from modelport.contract.dialect import speaking
from modelport.contract.errors import InvalidRequest, WrongTask
from modelport.contract.reply import Usage
from modelport.contract.task import Media
from modelport.tasks.audio import TranscriptionDelta, TranscriptionRequest, TranscriptionResult
from modelport.tasks.text2text import GenerateParameters
from modelport_api_openai.answer import AnyRequest, HostDependency, answer, elapsed
from modelport_api_openai.errors import invalid
from modelport_api_openai.form import read_form
from modelport_api_openai.sse import event, event_stream
from modelport_api_openai.subtitles import cues_of, srt, vtt

__all__ = ["TranscriptionBody", "TranslationBody", "create_transcription", "create_translation"]

_TASK = "automatic-speech-recognition"
_NAMES = {"inputs": "file", "return_timestamps": "response_format"}

Format = Literal["json", "text", "srt", "verbose_json", "vtt"]


class TranslationBody(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The fields of a translation into English, beside the file. `temperature` 0 is greedy."""

    model: str
    prompt: str = ""
    response_format: Format = "json"
    temperature: Annotated[float, Meta(ge=0, le=1)] = 0.0

    def to_task(self, file: Media) -> TranscriptionRequest:
        """The request in the task's terms."""
        return TranscriptionRequest(
            inputs=file,
            task="translate",
            return_timestamps=self.response_format not in ("json", "text"),
            prompt=self.prompt,
            generate_parameters=self._parameters(),
        )

    def _parameters(self) -> GenerateParameters:
        return GenerateParameters(do_sample=True, temperature=self.temperature) if self.temperature else GenerateParameters()


class TranscriptionBody(TranslationBody, kw_only=True, forbid_unknown_fields=True):
    """The fields of a transcription, beside the file. How sound is cut is the model's affair: `chunking_strategy` is ignored."""

    language: str | None = None
    timestamp_granularities: list[Literal["word", "segment"]] = []
    stream: bool = False
    include: list[str] = []
    chunking_strategy: Any = None

    def to_task(self, file: Media) -> TranscriptionRequest:
        """The request in the task's terms.

        Raises:
            InvalidRequest: for what contradicts itself or is not done here.
        """
        if self.timestamp_granularities and self.response_format != "verbose_json":
            raise invalid(
                "timestamp_granularities", "The field 'timestamp_granularities' needs the 'response_format' verbose_json."
            )
        if self.stream and self.response_format not in ("json", "text"):
            raise invalid("stream", f"A transcription as {self.response_format} is not streamed. Ask for json, or do not stream.")
        if self.include:
            raise invalid("include", "The field 'include' is not supported: nothing can be added. Leave it out.")
        plain = TranslationBody.to_task(self, file)
        times = "word" if "word" in self.timestamp_granularities else plain.return_timestamps
        return msgspec.structs.replace(plain, task="transcribe", return_timestamps=times, language=self.language or None)


class DurationUsage(msgspec.Struct, frozen=True):
    """What was heard, in seconds."""

    seconds: float
    type: str = "duration"


class Transcript(msgspec.Struct, frozen=True):
    """The text alone."""

    text: str
    usage: DurationUsage


class VerboseSegment(msgspec.Struct, frozen=True, kw_only=True):
    """A segment; what the model does not tell is null."""

    id: int
    seek: int
    start: float
    end: float
    text: str
    tokens: list[int]
    temperature: float
    avg_logprob: float | None
    compression_ratio: float
    no_speech_prob: float | None


class VerboseWord(msgspec.Struct, frozen=True):
    """A word and its times."""

    word: str
    start: float
    end: float | None


class VerboseTranscript(msgspec.Struct, frozen=True, kw_only=True):
    """The text and all that is known of it. `language` is a code, empty where the model tells none."""

    task: str
    language: str
    duration: float
    text: str
    segments: list[VerboseSegment] | UnsetType = UNSET
    words: list[VerboseWord] | UnsetType = UNSET
    usage: DurationUsage


class TextDelta(msgspec.Struct, frozen=True):
    """What was said next."""

    delta: str
    type: str = "transcript.text.delta"


class StreamUsage(msgspec.Struct, frozen=True, kw_only=True):
    """What a stream took, in tokens."""

    type: str = "tokens"
    input_tokens: int
    output_tokens: int
    total_tokens: int


class TextDone(msgspec.Struct, frozen=True):
    """All that was said."""

    text: str
    usage: StreamUsage
    type: str = "transcript.text.done"


@post(
    "/v1/audio/transcriptions", status_code=200, summary="Speech to text", tags=["openai"], request_max_body_size=None
)  # the server bounds media itself
async def create_transcription(request: AnyRequest, host: HostDependency) -> Response[Any]:
    """Speech to text."""
    started = time.perf_counter()
    principal = host.principal(request.scope)
    file, body = await read_form(
        request, TranscriptionBody, numbers=("temperature",), lists=("timestamp_granularities", "include")
    )
    names = _NAMES | ({"return_timestamps": "timestamp_granularities"} if body.timestamp_granularities else {})
    with speaking(names):
        task = body.to_task(file)
        if body.stream:
            stream = await host.stream(_TASK, body.model, task, principal, request.scope)
            return event_stream([stream], TranscriptWriter(), names, started)
        reply = await host.run(_TASK, body.model, task, principal, request.scope)
    granularities = body.timestamp_granularities or ["segment"]
    return _answered(reply.result, body.response_format, "transcribe", granularities, started)


@post("/v1/audio/translations", status_code=200, summary="Speech to English text", tags=["openai"], request_max_body_size=None)
async def create_translation(request: AnyRequest, host: HostDependency) -> Response[Any]:
    """Speech to English text."""
    started = time.perf_counter()
    principal = host.principal(request.scope)
    file, body = await read_form(request, TranslationBody, numbers=("temperature",))
    try:
        with speaking(_NAMES):
            reply = await host.run(_TASK, body.model, body.to_task(file), principal, request.scope)
    except InvalidRequest as error:
        if error.param != "task" or isinstance(error, WrongTask):  # it is no field here, but what the model was chosen for
            raise
        raise invalid(
            "model", f"The model '{body.model}' does not translate. Ask for a transcription, or another model."
        ) from None
    result = msgspec.structs.replace(reply.result, language="english")  # that of the text, as OpenAI has it
    return _answered(result, body.response_format, "translate", ["segment"], started)


def _answered(result: TranscriptionResult, format: Format, task: str, granularities: list[Any], started: float) -> Response[Any]:
    text = result.text.strip()
    usage = DurationUsage(result.duration)
    match format:
        case "json":
            return answer(Transcript(text, usage), started)
        case "verbose_json":
            segments = [VerboseSegment(id=at, **msgspec.structs.asdict(segment)) for at, segment in enumerate(result.segments)]
            words = [VerboseWord(chunk.text.strip(), *chunk.timestamp) for chunk in result.chunks]
            verbose = VerboseTranscript(
                task=task,
                language=result.language,
                duration=result.duration,
                text=text,
                segments=segments if "segment" in granularities else UNSET,
                words=words if "word" in granularities else UNSET,
                usage=usage,
            )
            return answer(verbose, started)
        case "srt":
            made, kind = srt(cues_of(result)), "text/plain"
        case "vtt":
            made, kind = vtt(cues_of(result)), "text/vtt"
        case "text":
            made, kind = f"{text}\n", "text/plain"
    return Response(made.encode(), media_type=kind, status_code=200, headers=elapsed(started))


class TranscriptWriter:
    """Writes deltas as the events of a transcription."""

    def __init__(self) -> None:
        self._text = ""

    def delta(self, prompt: int, delta: TranscriptionDelta) -> bytes:
        text = delta.text if self._text else delta.text.lstrip()
        self._text += text
        return event(TextDelta(text)) if text else b""

    def usage(self, usage: Usage) -> bytes:
        read, written = usage.prompt_tokens, usage.completion_tokens
        total = StreamUsage(input_tokens=read, output_tokens=written, total_tokens=read + written)
        return event(TextDone(self._text.strip(), total))
