"""POST /v1/audio/speech."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from typing import Annotated, Literal

import msgspec
from litestar import Response, post
from litestar.response import Stream
from msgspec import Meta

from modelport.contract.api import decode_body
from modelport.contract.dialect import speaking
from modelport.contract.errors import UnsupportedParameter
from modelport.contract.reply import Reply
from modelport.tasks.synthesis import MOST_CHARACTERS, SpeechRequest, SpeechResult
from modelport.tasks.text2text import GenerateParameters
from modelport_api_openai.answer import AnyRequest, HostDependency, elapsed
from modelport_api_openai.sse import event

__all__ = ["SpeechBody", "create_speech"]

_NAMES = {"inputs": "input", "format": "response_format"}
_CHUNK_BYTES = 32 * 1024
"""Bytes of sound in one event."""


class VoiceId(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A voice by its id, as the official client writes voices of a user's own."""

    id: str


class SpeechBody(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The request. `language` and `seed` are additions, and `voice` may be left out."""

    model: str
    input: Annotated[str, Meta(max_length=MOST_CHARACTERS)]
    voice: str | VoiceId | None = None
    response_format: Literal["mp3", "opus", "aac", "flac", "wav", "pcm"] = "mp3"
    speed: Annotated[float, Meta(ge=0.25, le=4.0)] = 1.0
    instructions: str | None = None
    stream_format: Literal["audio", "sse"] = "audio"
    language: str | None = None
    seed: int | None = None

    def to_task(self) -> SpeechRequest:
        """The request in the task's terms.

        Raises:
            UnsupportedParameter: for instructions, which no model here follows.
        """
        if self.instructions:
            raise UnsupportedParameter(
                "'instructions' is not supported: models here speak in the manner of their voices. Leave it out.",
                param="instructions",
            )
        return SpeechRequest(
            inputs=self.input,
            voice=self.voice.id if isinstance(self.voice, VoiceId) else self.voice,
            language=self.language,
            speed=self.speed,
            format=self.response_format,
            generate_parameters=GenerateParameters(seed=self.seed),
        )


class SpeechUsage(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens of the text; sound is not counted in tokens."""

    input_tokens: int
    output_tokens: int = 0
    total_tokens: int


class SpeechDelta(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="speech.audio.delta"):
    """A piece of the file, which JSON carries as base64."""

    audio: memoryview


class SpeechDone(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="speech.audio.done"):
    """The end of the file."""

    usage: SpeechUsage


@post("/v1/audio/speech", status_code=200, summary="A text spoken", tags=["openai"])
async def create_speech(request: AnyRequest, host: HostDependency) -> Response[bytes] | Stream:
    """A text spoken: a file of sound, or the same in events."""
    started = time.perf_counter()
    principal = host.principal(request.scope)
    body = decode_body(await request.body(), SpeechBody)
    with speaking(_NAMES):
        reply: Reply[SpeechResult] = await host.run("text-to-speech", body.model, body.to_task(), principal, request.scope)
    if body.stream_format == "sse":
        headers = {"cache-control": "no-cache", **elapsed(started)}
        return Stream(_events(reply), media_type="text/event-stream", status_code=200, headers=headers)
    audio = reply.result.audio
    return Response(audio.data, media_type=audio.mime, status_code=200, headers=elapsed(started))


async def _events(reply: Reply[SpeechResult]) -> AsyncGenerator[bytes, None]:
    data = memoryview(reply.result.audio.data)
    for start in range(0, len(data), _CHUNK_BYTES):
        yield event(SpeechDelta(audio=data[start : start + _CHUNK_BYTES]))
    tokens = reply.usage.prompt_tokens
    yield event(SpeechDone(usage=SpeechUsage(input_tokens=tokens, total_tokens=tokens)))
