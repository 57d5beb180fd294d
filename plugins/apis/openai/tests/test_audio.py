"""Recordings, as the official client sends them, and what comes back."""

from __future__ import annotations

import json
import warnings
from collections.abc import AsyncIterator
from typing import Any

import httpx
import openai
import pytest

from modelport.contract import InvalidRequest, Media
from modelport.tasks.audio import (
    TimedText,
    TranscriptionDelta,
    TranscriptionResult,
    TranscriptSegment,
)

TASK = "automatic-speech-recognition"
PART = b'--x\r\ncontent-disposition: form-data; name="model"\r\n'
FILE = ("speech.wav", b"RIFFsound", "audio/wav")
SEGMENTS = [
    TranscriptSegment(start=0.0, end=2.5, text=" Hello there.", tokens=[1, 2], avg_logprob=-0.25, no_speech_prob=0.01),
    TranscriptSegment(start=2.5, end=3723.0, text=" Good --> day.", tokens=[3], seek=250, temperature=0.5),
]
RESULT = TranscriptionResult(
    text=" Hello there. Good --> day.",
    segments=SEGMENTS,
    chunks=[TimedText(" Hello", (0.0, 1.0)), TimedText(" there.", (1.0, 2.5))],
    language="de",
    duration=3723.5,
)


@pytest.fixture
def host(host: Any) -> Any:
    host.answers[TASK] = RESULT
    return host


async def test_a_recording_becomes_text(sdk: openai.AsyncOpenAI, host: Any) -> None:
    reply = await sdk.audio.transcriptions.create(file=FILE, model="tiny", language="de", prompt="Names: Ada.", temperature=0.4)

    assert reply.text == "Hello there. Good --> day."
    assert (reply.usage.type, reply.usage.seconds) == ("duration", 3723.5)  # type: ignore[union-attr]
    task = host.request
    assert task.inputs == Media(data=FILE[1], mime="audio/wav")
    assert (task.language, task.prompt, task.task, task.return_timestamps) == ("de", "Names: Ada.", "transcribe", False)
    assert (task.generate_parameters.do_sample, task.generate_parameters.temperature) == (True, 0.4)


async def test_temperature_0_is_greedy_and_asks_for_nothing(sdk: openai.AsyncOpenAI, host: Any) -> None:
    await sdk.audio.transcriptions.create(file=FILE, model="tiny", temperature=0)

    assert host.request.generate_parameters.temperature is None


async def test_verbose_tells_segments(sdk: openai.AsyncOpenAI, host: Any) -> None:
    reply = await sdk.audio.transcriptions.create(file=FILE, model="tiny", response_format="verbose_json")

    assert (reply.language, reply.duration, reply.words) == ("de", 3723.5, None)
    assert reply.segments is not None
    first, second = reply.segments
    assert (first.id, first.start, first.end, first.text, first.tokens) == (0, 0.0, 2.5, " Hello there.", [1, 2])
    assert (first.avg_logprob, first.no_speech_prob) == (-0.25, 0.01)
    assert (second.id, second.seek, second.temperature) == (1, 250, 0.5)
    assert host.request.return_timestamps is True


async def test_verbose_tells_words_if_they_are_asked_for(sdk: openai.AsyncOpenAI, host: Any) -> None:
    reply = await sdk.audio.transcriptions.create(
        file=FILE, model="tiny", response_format="verbose_json", timestamp_granularities=["word"]
    )

    assert reply.words is not None
    assert [(word.word, word.start, word.end) for word in reply.words] == [("Hello", 0.0, 1.0), ("there.", 1.0, 2.5)]
    assert reply.segments is None
    assert host.request.return_timestamps == "word"


@pytest.mark.parametrize(
    ("format", "kind", "text"),
    [
        ("text", "text/plain", "Hello there. Good --> day.\n"),
        (
            "srt",
            "text/plain",
            "1\n00:00:00,000 --> 00:00:02,500\nHello there.\n\n2\n00:00:02,500 --> 01:02:03,000\nGood --> day.\n",
        ),
        (
            "vtt",
            "text/vtt",
            "WEBVTT\n\n00:00:00.000 --> 00:00:02.500\nHello there.\n\n00:00:02.500 --> 01:02:03.000\nGood -> day.\n",
        ),
    ],
)
async def test_plain_formats(http: httpx.AsyncClient, host: Any, format: str, kind: str, text: str) -> None:
    reply = await http.post("/v1/audio/transcriptions", files={"file": FILE}, data={"model": "tiny", "response_format": format})

    assert (reply.status_code, reply.text) == (200, text)
    assert reply.headers["content-type"] == f"{kind}; charset=utf-8"


async def test_subtitles_of_words_alone_fill_the_screen(http: httpx.AsyncClient, host: Any) -> None:
    words = [TimedText(f"w{at}", (float(at), at + 1.0)) for at in range(9)]
    host.answers[TASK] = TranscriptionResult(text="…", chunks=words, duration=9.0)

    reply = await http.post("/v1/audio/transcriptions", files={"file": FILE}, data={"model": "tiny", "response_format": "srt"})

    assert reply.text.splitlines()[1:3] == ["00:00:00,000 --> 00:00:07,000", "w0 w1 w2 w3 w4 w5 w6"]
    assert reply.text.splitlines()[5:7] == ["00:00:07,000 --> 00:00:09,000", "w7 w8"]


async def test_translation_is_into_english(sdk: openai.AsyncOpenAI, host: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the client's own types of audio
        reply: Any = await sdk.audio.translations.create(file=FILE, model="tiny", response_format="verbose_json")

    assert (reply.text, reply.language) == ("Hello there. Good --> day.", "english")
    assert (host.request.task, host.request.language) == ("translate", None)


async def test_a_stream_tells_what_was_said_next_and_all_of_it(sdk: openai.AsyncOpenAI, host: Any) -> None:
    host.answers[TASK] = [TranscriptionDelta(text=" Hello"), TranscriptionDelta(text=" there."), TranscriptionDelta(duration=1.0)]

    stream = await sdk.audio.transcriptions.create(file=FILE, model="tiny", stream=True)
    events = [each async for each in stream]

    assert [(each.type, getattr(each, "delta", getattr(each, "text", None))) for each in events] == [
        ("transcript.text.delta", "Hello"),
        ("transcript.text.delta", " there."),
        ("transcript.text.done", "Hello there."),
    ]
    assert events[-1].usage.total_tokens == 8  # type: ignore[union-attr]


async def test_a_failure_before_the_first_delta_has_a_status(sdk: openai.AsyncOpenAI, host: Any) -> None:
    host.answers[TASK] = InvalidRequest("inputs is not sound that can be read.", param="inputs")

    for stream in (False, True):
        with pytest.raises(openai.BadRequestError) as refused:
            await sdk.audio.transcriptions.create(file=FILE, model="tiny", stream=stream)  # type: ignore[call-overload]
        assert refused.value.param == "file"
        assert "file is not sound" in refused.value.message


async def test_an_unknown_model_is_404(sdk: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as refused:
        await sdk.audio.transcriptions.create(file=FILE, model="nobody")
    assert (refused.value.param, refused.value.code) == ("model", "model_not_found")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": "tiny", "colour": "red"}, "colour"),
        ({}, "model"),
        ({"model": "tiny", "temperature": "warm"}, "temperature"),
        ({"model": "tiny", "temperature": "3"}, "temperature"),
        ({"model": "tiny", "response_format": "docx"}, "response_format"),
        ({"model": "tiny", "timestamp_granularities[]": "word"}, "timestamp_granularities"),
        (
            {"model": "tiny", "response_format": "verbose_json", "timestamp_granularities[]": "syllable"},
            "timestamp_granularities.0",
        ),
        ({"model": "tiny", "response_format": "srt", "stream": "true"}, "stream"),
        ({"model": "tiny", "include[]": "logprobs"}, "include"),
        ({"model": ["tiny", "tiny"]}, "model"),
    ],
)
async def test_what_is_wrong_is_named(http: httpx.AsyncClient, host: Any, fields: dict[str, Any], param: str) -> None:
    reply = await http.post("/v1/audio/transcriptions", files={"file": FILE}, data=fields)

    assert (reply.status_code, reply.json()["error"]["param"]) == (400, param)
    assert not host.calls


async def test_translations_know_no_language(http: httpx.AsyncClient) -> None:
    reply = await http.post("/v1/audio/translations", files={"file": FILE}, data={"model": "tiny", "language": "de"})

    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "language")


async def test_a_model_that_only_transcribes_says_so_of_itself(http: httpx.AsyncClient, host: Any) -> None:
    host.answers[TASK] = InvalidRequest("task is 'translate', and this model only transcribes.", param="task")
    reply = await http.post("/v1/audio/translations", files={"file": FILE}, data={"model": "tiny"})

    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "model")
    assert "'tiny' does not translate" in reply.json()["error"]["message"]

    other = await http.post("/v1/audio/translations", files={"file": FILE}, data={"model": "small"})
    assert (other.status_code, other.json()["error"]["code"]) == (400, "model_not_supported")


@pytest.mark.parametrize("files", [{}, {"file": ("a.wav", b"", "audio/wav")}, {"file": FILE, "second": FILE}])
async def test_a_form_without_its_one_file_is_refused(http: httpx.AsyncClient, files: dict[str, Any]) -> None:
    more = {"note": (None, b"x")} if not files else {}
    reply = await http.post("/v1/audio/transcriptions", files={**files, **more}, data={"model": "tiny"})

    assert reply.status_code == 400
    assert reply.json()["error"]["param"] in ("file", "second")


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"{}", "application/json"),
        (b"rubbish", "multipart/form-data; boundary=x"),
        (b"rubbish", "multipart/form-data"),
        (PART + b"content-type: text/plain; charset=klingon\r\n\r\na\r\n--x--\r\n", "multipart/form-data; boundary=x"),
        (PART + b"\r\n\xff\r\n--x--\r\n", "multipart/form-data; boundary=x"),
    ],
)
async def test_what_is_no_form_is_refused(http: httpx.AsyncClient, body: bytes, kind: str) -> None:
    reply = await http.post("/v1/audio/transcriptions", content=body, headers={"content-type": kind})

    assert reply.status_code == 400
    assert set(reply.json()["error"]) == {"message", "type", "param", "code"}


async def test_fields_are_no_larger_than_json_may_be(http: httpx.AsyncClient, host: Any) -> None:
    fields = {"model": "tiny", "prompt": "x" * 10_000_001}
    reply = await http.post("/v1/audio/transcriptions", files={"file": FILE}, data=fields)

    assert (reply.status_code, reply.json()["error"]["code"]) == (413, "request_too_large")
    assert not host.calls


async def test_json_floats_of_a_stream_are_events(http: httpx.AsyncClient, host: Any) -> None:
    host.answers[TASK] = [TranscriptionDelta(text=" a")]

    reply = await http.post("/v1/audio/transcriptions", files={"file": FILE}, data={"model": "tiny", "stream": "true"})

    lines = [line async for line in _lines(reply)]
    assert [json.loads(line)["type"] for line in lines[:-1]] == ["transcript.text.delta", "transcript.text.done"]
    assert lines[-1] == "[DONE]"


async def _lines(reply: httpx.Response) -> AsyncIterator[str]:
    async for line in reply.aiter_lines():
        if line.startswith("data: "):
            yield line.removeprefix("data: ")
