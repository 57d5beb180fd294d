"""A real Whisper through a real server: a spoken sentence written down, by OpenAI's own client.

`media/train.ogg` was spoken by espeak-ng (en-gb, 150 words a minute).
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import openai
import pytest
import soundfile

from .conftest import DEMO, Server

pytestmark = pytest.mark.real

WHISPER = DEMO / "whisper-tiny.en"
FILE = Path(__file__).parent / "media" / "train.ogg"
SAID = "The train to London leaves at nine o'clock in the morning, and the journey takes about three hours."


@pytest.fixture(scope="module")
def ears(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server with Whisper in float32."""
    if not (WHISPER / "config.json").exists():
        pytest.skip("the demo model whisper-tiny.en is not there; `modelport demo --all` fetches it")
    config = f'[backends.cpu]\n[models.whisper]\nsource = "{WHISPER}"\ndtype = "float32"\nbackend = "cpu"\n'
    server = Server(tmp_path_factory.mktemp("ears"), config)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def client(ears: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{ears.url}/v1", api_key="none", max_retries=0, timeout=120) as opened:
        yield opened


def words(text: str) -> list[str]:
    return re.findall(r"[a-z']+|\d+", text.lower())


def error_rate(said: str, written: str) -> float:
    """Words that were changed, left out or added, of those that were said."""
    expected, found = words(said), words(written)
    row = list(range(len(found) + 1))
    for at, word in enumerate(expected, 1):
        before, row = row, [at, *row[1:]]
        for place, other in enumerate(found, 1):
            row[place] = min(before[place] + 1, row[place - 1] + 1, before[place - 1] + (word != other))
    return row[-1] / len(expected)


def test_a_spoken_sentence_is_written_down_with_times(client: openai.OpenAI) -> None:
    reply = client.audio.transcriptions.create(
        file=FILE, model="whisper", response_format="verbose_json", timestamp_granularities=["word", "segment"]
    )

    assert error_rate(SAID, reply.text) <= 0.2
    assert reply.duration == pytest.approx(6.0, abs=0.05)
    assert reply.segments
    assert reply.segments[0].start == 0
    assert 5 < reply.segments[-1].end <= 6.5
    assert reply.segments[0].avg_logprob > -1
    assert reply.segments[0].no_speech_prob < 0.5
    assert reply.words
    starts, ends = [word.start for word in reply.words], [word.end for word in reply.words]
    assert starts == sorted(starts)
    assert ends == sorted(ends)
    at = {word.word.strip(",.").lower(): word for word in reply.words}
    assert at["london"].end < 2 < at["morning"].end < 4 < at["hours"].end < 6.5


def test_every_format_says_the_same(client: openai.OpenAI) -> None:
    plain = client.audio.transcriptions.create(file=FILE, model="whisper").text
    stream = list(client.audio.transcriptions.create(file=FILE, model="whisper", stream=True))
    srt = str(client.audio.transcriptions.create(file=FILE, model="whisper", response_format="srt"))

    assert [event.type for event in stream][-1] == "transcript.text.done"
    assert stream[-1].text == plain  # type: ignore[union-attr]
    assert srt.startswith("1\n00:00:00,000 --> 00:00:0")
    assert words(srt.split("\n", 2)[2]) == words(plain)


def test_half_a_minute_and_more_is_walked_through_as_transformers_does(ears: Server) -> None:
    import torch
    import transformers

    samples, rate = soundfile.read(FILE, dtype="float32")
    longer = np.round(np.tile(samples, 6)[: 32 * rate] * 32767).astype(np.int16)
    file = io.BytesIO()
    soundfile.write(file, longer, rate, format="FLAC")
    model = transformers.WhisperForConditionalGeneration.from_pretrained(WHISPER, dtype=torch.float32).eval()
    extractor = transformers.WhisperFeatureExtractor.from_pretrained(WHISPER)
    made = extractor(
        longer.astype(np.float32) / 32768, sampling_rate=rate, return_tensors="pt", truncation=False, padding="longest"
    )
    with torch.inference_mode():
        expected = model.generate(made.input_features, return_timestamps=True, return_segments=True)["segments"][0]

    request = {"inputs": {"data": base64.b64encode(file.getvalue()).decode()}, "return_timestamps": True}
    answer = ears.client.post("/v1/infer/whisper", json=request)

    assert answer.status_code == 200, answer.text
    segments = answer.json()["result"]["segments"]
    assert [segment["tokens"] for segment in segments] == [each["tokens"].tolist() for each in expected]
    assert segments[-1]["end"] == pytest.approx(float(expected[-1]["end"]), abs=0.011)
    assert segments[-1]["end"] > 29


def test_recordings_may_be_larger_than_json_and_not_without_bound(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="not sound"):
        client.audio.transcriptions.create(file=("big.wav", bytes(12_000_000)), model="whisper")
    with pytest.raises(openai.APIStatusError) as refused:
        client.audio.transcriptions.create(file=("huge.wav", bytes(66_000_000)), model="whisper")
    assert (refused.value.status_code, refused.value.code) == (413, "request_too_large")


def test_an_english_model_does_not_translate(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.audio.transcriptions.create(file=FILE, model="whisper", language="de")
    assert refused.value.param == "language"


def test_silence_of_ten_hours_is_refused_and_the_worker_lives(client: openai.OpenAI, ears: Server) -> None:
    worker = ears.worker_of("whisper").pid
    file = io.BytesIO()
    with soundfile.SoundFile(file, "w", 1000, 1, format="FLAC", subtype="PCM_16") as opened:
        for _ in range(10):
            opened.write(np.zeros(3600 * 1000, np.int16))
    with pytest.raises(openai.BadRequestError, match="36,000 s long"):
        client.audio.transcriptions.create(file=("silence.flac", file.getvalue()), model="whisper")
    assert ears.worker_of("whisper").pid == worker
