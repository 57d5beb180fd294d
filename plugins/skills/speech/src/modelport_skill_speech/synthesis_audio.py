"""Waveforms to files: samples per second, speed, and encoding."""

from __future__ import annotations

import io
from fractions import Fraction

import av
import av.filter
import numpy as np
import soundfile
import soxr

from modelport.contract import Media
from modelport.tasks.synthesis import AudioFormat

__all__ = ["MIME", "encode", "stretch"]

MIME: dict[AudioFormat, str] = {
    "wav": "audio/wav",
    "flac": "audio/flac",
    "mp3": "audio/mpeg",
    "opus": "audio/opus",
    "aac": "audio/aac",
    "pcm": "audio/pcm",
}
"""As OpenAI's speech endpoint names them."""

_RATES: dict[AudioFormat, tuple[int, ...]] = {
    "pcm": (24_000,),
    "opus": (8_000, 12_000, 16_000, 24_000, 48_000),
    "mp3": (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000),
    "aac": (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 64_000, 88_200, 96_000),
}
"""Samples per second that an encoder takes; those of `wav` and `flac` are free."""


def encode(waveform: np.ndarray, rate: int, format: AudioFormat) -> tuple[Media, int]:
    """A file of `waveform`, and its samples per second: the next that the format has, if it does not have `rate`.

    Args:
        waveform: (samples,) float32; what is beyond -1 to 1 is cut off.
    """
    allowed = _RATES.get(format)
    target = rate if allowed is None else next((one for one in allowed if one >= rate), allowed[-1])
    if target != rate:
        waveform = soxr.resample(waveform, rate, target)
    samples = (np.clip(waveform, -1.0, 1.0) * 32767).round().astype("<i2")
    if format == "pcm":
        data = samples.tobytes()
    elif format == "aac":
        data = _aac(samples, target)
    else:
        data = _file(samples, target, format)
    return Media(data=data, mime=MIME[format]), target


def stretch(waveform: np.ndarray, rate: int, speed: float) -> np.ndarray:
    """(samples,) float32 at `speed` times the tempo and the same pitch: (samples / speed,)."""
    silence = np.zeros(rate // 5, np.float32)  # the filter keeps a part of the last window to itself
    samples = np.concatenate([waveform.astype(np.float32), silence])
    graph = av.filter.Graph()
    source = graph.add_abuffer(sample_rate=rate, format="flt", layout="mono", time_base=Fraction(1, rate))
    last = source
    for factor in _factors(speed):
        tempo = graph.add("atempo", str(factor))
        last.link_to(tempo)
        last = tempo
    sink = graph.add("abuffersink")
    last.link_to(sink)
    graph.configure()
    source.push(_frame(samples, rate, "flt"))
    source.push(None)
    parts = []
    while True:
        try:
            stretched = sink.pull()
        except (av.error.EOFError, av.error.BlockingIOError):
            break
        assert isinstance(stretched, av.AudioFrame)
        parts.append(stretched.to_ndarray().reshape(-1))
    return np.concatenate(parts)[: round(len(waveform) / speed)]


def _factors(speed: float) -> list[float]:
    """`speed` as a product of tempos that the filter takes at full quality: 0.5 to 2 each."""
    factors = []
    while speed < 0.5 or speed > 2.0:
        step = 0.5 if speed < 0.5 else 2.0
        factors.append(step)
        speed /= step
    return [*factors, speed]


def _file(samples: np.ndarray, rate: int, format: AudioFormat) -> bytes:
    kinds = {
        "wav": ("WAV", "PCM_16"),
        "flac": ("FLAC", "PCM_16"),
        "mp3": ("MP3", "MPEG_LAYER_III"),
        "opus": ("OGG", "OPUS"),
    }
    container, subtype = kinds[format]
    buffer = io.BytesIO()
    with soundfile.SoundFile(buffer, "w", rate, 1, subtype, format=container) as file:
        for start in range(0, len(samples), rate):  # in seconds: encoders keep what is written at once on their stack
            file.write(samples[start : start + rate])
    return buffer.getvalue()


def _aac(samples: np.ndarray, rate: int) -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="adts") as container:
        stream = container.add_stream("aac", rate=rate, layout="mono")
        frame = _frame(samples.astype(np.float32) / 32768, rate, "fltp")
        resampler = av.AudioResampler(format="fltp", layout="mono", rate=rate, frame_size=1024)
        for part in (*resampler.resample(frame), *resampler.resample(None)):
            container.mux(stream.encode(part))
        container.mux(stream.encode(None))
    return buffer.getvalue()


def _frame(samples: np.ndarray, rate: int, format: str) -> av.AudioFrame:
    frame = av.AudioFrame.from_ndarray(samples[None], format=format, layout="mono")
    frame.sample_rate = rate
    frame.time_base = Fraction(1, rate)
    frame.pts = 0
    return frame
