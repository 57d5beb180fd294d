"""Sound of callers: what is decoded, and what is refused without harm."""

from __future__ import annotations

import base64
import io
import struct
import tracemalloc
from typing import Any

import av
import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from modelport.contract import InvalidRequest, Media
from modelport_hf.audio import decode_audio

RATE = 16_000


def tone(seconds: float = 0.5, rate: int = RATE, pitch: float = 440.0) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * pitch * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


def written(samples: np.ndarray, rate: int = RATE, format: str = "WAV", subtype: str | None = None) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=format, subtype=subtype)
    return file.getvalue()


def muxed(samples: np.ndarray, rate: int, container: str, codec: str) -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format=container) as opened:
        stream = opened.add_stream(codec, rate=rate, layout="mono")
        frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
        frame.rate = rate
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            opened.mux(packet)
    return file.getvalue()


def heard(found: np.ndarray, pitch: float = 440.0, rate: int = RATE) -> bool:
    """Whether the loudest frequency is the tone's."""
    spectrum = np.abs(np.fft.rfft(found))
    return bool(abs(spectrum.argmax() * rate / len(found) - pitch) < 10)


@pytest.mark.parametrize(("format", "subtype"), [("WAV", "FLOAT"), ("FLAC", "PCM_16"), ("AIFF", "PCM_24"), ("WAV", "PCM_16")])
def test_lossless_formats_are_read_exactly(format: str, subtype: str) -> None:
    found = decode_audio(Media(data=written(tone(), format=format, subtype=subtype)), RATE)

    assert found.dtype == np.float32
    assert np.abs(found - tone()).max() <= 1 / (1 << 15)


@pytest.mark.parametrize(
    "data",
    [
        written(tone(1.0, 44_100), 44_100, "MP3"),
        written(tone(1.0, 44_100), 44_100, "OGG"),
        muxed(tone(1.0, 48_000), 48_000, "webm", "libopus"),
        muxed(tone(1.0, 44_100), 44_100, "ipod", "aac"),
        muxed(tone(1.0, 44_100), 44_100, "adts", "aac"),
    ],
    ids=["mp3", "ogg", "webm", "m4a", "aac"],
)
def test_lossy_formats_sound_alike(data: bytes) -> None:
    found = decode_audio(Media(data=data), RATE)

    assert heard(found)
    assert abs(len(found) / RATE - 1.0) < 0.1


def test_channels_become_their_mean_and_the_rate_the_model_s() -> None:
    both = np.stack([tone(1.0, 44_100), np.zeros(44_100, np.float32)], axis=1)

    found = decode_audio(Media(data=written(both, 44_100, subtype="FLOAT")), RATE)

    assert len(found) == RATE
    assert np.abs(found[500:-500] - tone(1.0)[500:-500] / 2).max() < 1e-3


def test_a_file_of_a_pipe_tells_no_length_and_is_read() -> None:
    data = bytearray(written(tone()))
    at = data.index(b"data") + 4
    data[at : at + 4] = data[4:8] = b"\xff\xff\xff\xff"

    assert len(decode_audio(Media(data=bytes(data)), RATE)) == len(tone())


def test_data_urls_are_read() -> None:
    url = f"data:audio/wav;base64,{base64.b64encode(written(tone())).decode()}"

    assert len(decode_audio(Media(url=url), RATE)) == len(tone())


@pytest.fixture(scope="module")
def ten_hours() -> bytes:
    file = io.BytesIO()
    with soundfile.SoundFile(file, "w", 1000, 1, format="FLAC", subtype="PCM_16") as opened:
        for _ in range(10):
            opened.write(np.zeros(3600 * 1000, np.int16))
    return file.getvalue()


def test_ten_hours_of_silence_are_refused_by_the_header(ten_hours: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(InvalidRequest, match="36,000 s long, and at most 1,800 s") as refused:
            decode_audio(Media(data=ten_hours), RATE)
        assert tracemalloc.get_traced_memory()[1] < 10_000_000 + len(ten_hours)
    finally:
        tracemalloc.stop()
    assert refused.value.param == "inputs"


def test_ten_hours_that_hide_their_length_are_refused_while_they_are_read(ten_hours: bytes) -> None:
    data = bytearray(ten_hours)
    data[21] &= 0xF0  # the total of samples in STREAMINFO: 0 says that it is unknown
    data[22:26] = bytes(4)
    tracemalloc.start()
    try:
        with pytest.raises(InvalidRequest, match=r"too long|cannot be read|zero"):
            decode_audio(Media(data=bytes(data)), RATE, most_seconds=60)
        assert tracemalloc.get_traced_memory()[1] < 40_000_000 + 2 * len(ten_hours)
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (written(np.zeros(0, np.float32)), "zero"),
        (written(tone())[:3000], "cut short"),
        (written(tone(), format="FLAC")[:3000], "cut short|cannot be decoded"),
        (muxed(tone(1.0, 48_000), 48_000, "webm", "libopus")[:100], "cannot be decoded|no track"),
        (muxed(tone(1.0, 44_100), 44_100, "ipod", "aac")[:300], "cannot be decoded|no track"),
        (written(np.array([0.1, np.nan, 0.2], np.float32), subtype="FLOAT"), "no numbers"),
        (written(tone(), 1), "1 samples per second"),
        (written(tone(), 2_000_000), "2000000 samples per second"),
        (written(np.zeros((10, 64), np.float32)), "64 channels"),
        (b"#EXTM3U\n#EXTINF:1,\nfile:///etc/hostname\n", "not sound"),
        (b"RIFF", "not sound"),
        (b"x", "not sound"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",  # files hold the time at which they were written
)
def test_what_is_no_sound_is_named(data: bytes, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words) as refused:
        decode_audio(Media(data=data), RATE, "audio")
    assert refused.value.param == "audio"
    assert "BytesIO" not in refused.value.message, "what a thing is called here is nobody's affair"


def test_a_track_of_pictures_alone_is_no_sound() -> None:
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as opened:
        stream: Any = opened.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 16
        frame = av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), format="rgb24")
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            opened.mux(packet)
    with pytest.raises(InvalidRequest, match="no track of sound"):
        decode_audio(Media(data=file.getvalue()), RATE)


SOUNDS = {
    "wav": written(tone(0.1)),
    "flac": written(tone(0.1), format="FLAC"),
    "ogg": written(tone(0.1), format="OGG"),
    "mp3": written(tone(0.1), format="MP3"),
    "webm": muxed(tone(0.1, 48_000), 48_000, "webm", "libopus"),
}


@settings(deadline=None, max_examples=25)
@given(cut=st.integers(0, 10_000), flips=st.lists(st.tuples(st.integers(0, 10_000), st.integers(1, 255)), max_size=4))
@pytest.mark.parametrize("format", sorted(SOUNDS))
def test_damage_is_the_caller_s_mistake_and_nothing_else(format: str, cut: int, flips: list[tuple[int, int]]) -> None:
    data = bytearray(SOUNDS[format])
    for at, value in flips:
        data[at % len(data)] ^= value
    try:
        found = decode_audio(Media(data=bytes(data[: cut % len(data) + 1])), RATE).ndim
    except InvalidRequest as refused:
        found = refused.param == "inputs"
    assert found == 1


def test_a_sound_that_is_asked_at_its_rate_is_not_touched() -> None:
    header, body = (
        struct.pack("<4sI4s4sIHHIIHH4sI", b"RIFF", 44, b"WAVE", b"fmt ", 16, 1, 1, RATE, 2 * RATE, 2, 16, b"data", 8),
        b"",
    )
    body = struct.pack("<4h", 0, 16384, -16384, 32767)

    assert decode_audio(Media(data=header + body), RATE).tolist() == [0.0, 0.5, -0.5, 32767 / 32768]
