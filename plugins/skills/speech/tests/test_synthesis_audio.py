"""Files hold the sound that they were made of, in any format and at any speed."""

from __future__ import annotations

import io
from typing import Any

import av
import numpy as np
import pytest

from modelport_skill_speech.synthesis_audio import encode, stretch

SECONDS = 1.5
PITCH = 440.0


def tone(rate: int, seconds: float = SECONDS) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * PITCH * np.arange(int(rate * seconds)) / rate)).astype(np.float32)


def decoded(data: bytes, rate: int, format: str) -> np.ndarray:
    """(samples,) of a file, by a decoder that is not the encoder's."""
    if format == "pcm":
        return np.frombuffer(data, "<i2").astype(np.float32) / 32768
    with av.open(io.BytesIO(data)) as container:
        resampler = av.AudioResampler("flt", "mono", rate)
        frames = [part for frame in container.decode(audio=0) for part in resampler.resample(frame)]
        return np.concatenate([frame.to_ndarray().reshape(-1) for frame in (*frames, *resampler.resample(None))])


def pitch(wave: np.ndarray, rate: int) -> float:
    return float(np.argmax(np.abs(np.fft.rfft(wave))) * rate / len(wave))


@pytest.mark.parametrize("rate", [5_000, 16_000, 22_050, 100_000])
@pytest.mark.parametrize("format", ["wav", "flac", "mp3", "opus", "aac", "pcm"])
def test_a_format_keeps_length_pitch_and_loudness(format: Any, rate: int) -> None:
    """Whatever the model's rate is: the next that the format has stands in."""
    media, got = encode(tone(rate), rate, format)
    found = decoded(media.data, got, format)
    assert len(found) / got == pytest.approx(SECONDS, abs=0.26)  # encoders add silence at both ends
    assert pitch(found, got) == pytest.approx(PITCH, abs=3)
    middle = found[len(found) // 4 : -len(found) // 4]
    assert float(np.sqrt(np.mean(middle**2))) == pytest.approx(0.5 / np.sqrt(2), rel=0.1)


@pytest.mark.parametrize(("format", "rate"), [("pcm", 24_000), ("opus", 24_000), ("mp3", 22_050), ("wav", 22_050)])
def test_a_rate_is_kept_where_the_format_has_it(format: Any, rate: int) -> None:
    assert encode(tone(22_050), 22_050, format)[1] == rate


def test_what_is_too_loud_is_cut_off_and_not_turned_over() -> None:
    media, _ = encode(np.array([2.0, -2.0, 0.5], np.float32), 24_000, "pcm")
    assert np.frombuffer(media.data, "<i2").tolist() == [32767, -32767, 16384]


def test_nothing_is_a_file_too() -> None:
    assert decoded(encode(tone(16_000, 0.0), 16_000, "pcm")[0].data, 24_000, "pcm").size == 0


@pytest.mark.parametrize("speed", [0.25, 0.3, 0.8, 1.5, 2.0, 3.3, 4.0])
def test_speed_changes_length_and_not_pitch(speed: float) -> None:
    fast = stretch(tone(16_000), 16_000, speed)
    assert len(fast) / 16_000 == pytest.approx(SECONDS / speed, abs=1e-3)
    assert pitch(fast, 16_000) == pytest.approx(PITCH, abs=4)
