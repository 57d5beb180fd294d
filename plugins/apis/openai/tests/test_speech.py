from __future__ import annotations

import base64
import json

import openai
import pytest

from modelport.contract import InvalidRequest
from modelport.contract.task import Media
from modelport.tasks.synthesis import SpeechResult

SOUND = bytes(range(256)) * 300


@pytest.fixture(autouse=True)
def sound(host):
    def spoken(request):
        return SpeechResult(audio=Media(data=SOUND, mime=f"audio/{request.format}"), sampling_rate=24_000)

    host.answers["text-to-speech"] = spoken


async def test_sdk_gets_the_file(sdk, host):
    answer = await sdk.audio.speech.create(model="tiny", input="hello", voice="alloy")
    assert answer.content == SOUND
    assert answer.response.headers["content-type"] == "audio/mp3"
    assert answer.response.headers["openai-processing-ms"].isdigit()
    request = host.request
    assert (request.inputs, request.voice, request.format, request.speed) == ("hello", "alloy", "mp3", 1.0)
    assert (request.language, request.generate_parameters.seed) == (None, None)


async def test_sdk_streams_the_file(sdk, tmp_path):
    create = sdk.audio.speech.with_streaming_response.create
    async with create(model="tiny", input="hello", voice="alloy", response_format="wav") as answer:
        assert answer.headers["content-type"] == "audio/wav"
        await answer.stream_to_file(tmp_path / "hello.wav")
    assert (tmp_path / "hello.wav").read_bytes() == SOUND


async def test_every_field_reaches_the_task(sdk, host):
    extra = {"language": "eng", "seed": 7}
    await sdk.audio.speech.create(
        model="tiny", input="hi", voice={"id": "voice_1"}, response_format="opus", speed=1.5, extra_body=extra
    )
    request = host.request
    assert (request.voice, request.format, request.speed, request.language) == ("voice_1", "opus", 1.5, "eng")
    assert request.generate_parameters.seed == 7


async def test_a_voice_may_be_left_out(http, host):
    response = await http.post("/v1/audio/speech", json={"model": "tiny", "input": "hi", "instructions": ""})
    assert response.status_code == 200
    assert host.request.voice is None


async def test_events_add_up_to_the_file(sdk):
    create = sdk.audio.speech.with_streaming_response.create
    async with create(model="tiny", input="hi", voice="alloy", stream_format="sse") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = [line async for line in answer.iter_lines() if line]
    events = [json.loads(line.removeprefix("data: ")) for line in lines]
    assert [event["type"] for event in events] == ["speech.audio.delta"] * (len(events) - 1) + ["speech.audio.done"]
    assert len(events) > 2
    assert b"".join(base64.b64decode(event["audio"]) for event in events[:-1]) == SOUND
    assert events[-1]["usage"] == {"input_tokens": 5, "output_tokens": 0, "total_tokens": 5}


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"response_format": "ogg"}, "response_format", None),
        ({"input": "a" * 4097}, "input", None),
        ({"speed": 5}, "speed", None),
        ({"voice": 3}, "voice", None),
        ({"stream_format": "ws"}, "stream_format", None),
        ({"instructions": "whisper"}, "instructions", "unsupported_parameter"),
    ],
)
async def test_what_is_wrong_is_named(refused, host, fields, param, code):
    error = await refused("/v1/audio/speech", {"model": "tiny", "input": "hi", "voice": "alloy", **fields})
    assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", param, code)
    assert host.calls == []


async def test_errors_of_the_model_name_the_fields_of_this_dialect(sdk, host):
    host.answers["text-to-speech"] = InvalidRequest("inputs is empty; give a text to speak.", param="inputs")
    with pytest.raises(openai.BadRequestError, match="input is empty") as caught:
        await sdk.audio.speech.create(model="tiny", input="", voice="alloy")
    assert caught.value.param == "input"


async def test_an_unknown_model_is_404(sdk):
    with pytest.raises(openai.NotFoundError) as caught:
        await sdk.audio.speech.create(model="tts-9", input="hi", voice="alloy")
    assert caught.value.code == "model_not_found"
