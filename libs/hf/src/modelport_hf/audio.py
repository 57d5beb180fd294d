"""Sound that callers send, decoded within bounds: mono, at the rate that a model wants. Its libraries are imported when called.

What cannot be decoded is the caller's mistake: every failure is an `InvalidRequest` that names the field.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from modelport.contract.errors import InvalidRequest
from modelport.contract.task import Media
from modelport_hf.media import media_bytes

__all__ = ["MOST_SECONDS", "decode_audio"]

MOST_SECONDS = 1800.0
"""Most seconds of sound of a request, unless a model says otherwise: 115 MB of samples at 16 kHz."""

_BLOCK = 1 << 16
_MOST_CHANNELS = 32
_RATES = (1_000, 768_000)
_UNKNOWN_FRAMES = 1 << 60  # what a FLAC or WAV written to a pipe says of its length
_FORMATS = "WAV, FLAC, OGG, MP3, AIFF, WebM, M4A or AAC"


def decode_audio(media: Media, rate: int, param: str = "inputs", most_seconds: float = MOST_SECONDS) -> np.ndarray:
    """The sound as float32 samples in about ±1, mono (the mean of its channels), at `rate` per second: shape (samples,).

    Memory is bounded by `most_seconds`, whatever the file says of itself: it is read, mixed and resampled in blocks.

    Raises:
        InvalidRequest: if there is no sound, it is damaged or cut short, of a format that is not read, longer than
            `most_seconds`, or holds what is no number.
    """
    import soxr

    data = media_bytes(media, param)
    source, blocks = _opened(data, param, most_seconds)
    resampler = soxr.ResampleStream(source, rate, 1, dtype="float32") if source != rate else None
    most, taken, parts = math.ceil(most_seconds * source), 0, []
    for block in blocks:
        taken += len(block)
        if taken > most:
            raise _too_long(param, most_seconds)
        if not np.isfinite(block).all():
            raise InvalidRequest(f"{param} has samples that are no numbers (NaN or infinite). Encode it again.", param=param)
        parts.append(block if resampler is None else resampler.resample_chunk(block))
    if resampler is not None and taken:
        parts.append(resampler.resample_chunk(np.zeros(0, np.float32), last=True))
    samples = np.concatenate(parts) if parts else np.zeros(0, np.float32)
    if not len(samples):
        raise InvalidRequest(f"{param} holds no sound: its length is zero. Send a recording.", param=param)
    return np.ascontiguousarray(samples, np.float32)


def _opened(data: bytes, param: str, most_seconds: float) -> tuple[int, Iterator[np.ndarray]]:
    """The file's own rate, and its mono blocks."""
    import soundfile

    container = _container(data)
    if container is not None:
        return _with_av(data, container, param)
    try:
        file = soundfile.SoundFile(io.BytesIO(data))
    except (soundfile.LibsndfileError, RuntimeError, TypeError) as error:
        raise InvalidRequest(
            f"{param} is not sound that can be read ({_words(error)}). Send {_FORMATS}, whole and as it is.", param=param
        ) from None
    _check(file.samplerate, file.channels, param)
    if not file.frames < _UNKNOWN_FRAMES:
        return file.samplerate, _with_soundfile(file, param, None)
    if file.frames > most_seconds * file.samplerate:
        raise _too_long(param, most_seconds, file.frames / file.samplerate)
    if _lacks_bytes(data):
        raise _cut_short(param)
    return file.samplerate, _with_soundfile(file, param, file.frames)


def _with_soundfile(file: Any, param: str, frames: int | None) -> Iterator[np.ndarray]:
    import soundfile

    taken = 0
    with file:
        while True:
            try:
                block = file.read(_BLOCK, dtype="float32", always_2d=True)
            except (soundfile.LibsndfileError, RuntimeError) as error:
                raise _damaged(param, error) from None
            if not len(block):
                break
            taken += len(block)
            yield block.mean(axis=1, dtype=np.float32)
    # The length of an MP3 is an estimate unless its encoder wrote it down.
    if frames is not None and taken < frames and file.format != "MP3":
        raise _cut_short(param)


def _with_av(data: bytes, container: str, param: str) -> tuple[int, Iterator[np.ndarray]]:
    import av

    try:
        # The demuxer is named: left to guess, some would open further files that the data points to.
        file = av.open(io.BytesIO(data), format=container)
        stream = next(iter(file.streams.audio), None)
    except (av.FFmpegError, ValueError) as error:
        raise _damaged(param, error) from None
    if stream is None:
        raise InvalidRequest(f"{param} has no track of sound. Send {_FORMATS}.", param=param)
    rate = int(stream.rate or 0)
    _check(rate, int(stream.channels or 1), param)
    return rate, _frames_of(file, stream, rate, param)


def _frames_of(file: Any, stream: Any, rate: int, param: str) -> Iterator[np.ndarray]:
    import av

    mixed = av.AudioResampler(format="fltp", rate=rate)  # planes of floats, in the file's own layout
    try:
        with file:
            for frame in file.decode(stream):
                for plain in mixed.resample(frame):
                    yield plain.to_ndarray().mean(axis=0, dtype=np.float32)
    except (av.FFmpegError, ValueError) as error:
        raise _damaged(param, error) from None


def _container(data: bytes) -> str | None:
    """FFmpeg's name of the container, of those that soundfile does not read."""
    if data[:4] == b"\x1aE\xdf\xa3":
        return "matroska"
    if data[4:8] == b"ftyp":
        return "mov"
    if len(data) > 1 and data[0] == 0xFF and data[1] & 0xF6 == 0xF0:
        return "aac"
    return None


def _lacks_bytes(data: bytes) -> bool:
    """Whether a WAV says that it has more data than came. One written to a pipe says 0, or as much as fits the field."""
    if data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        return False
    at = 12
    while at + 8 <= len(data):
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        if data[at : at + 4] == b"data":
            return at + 8 + size > len(data) and size < 0x7FFF_F000
        at += 8 + size + size % 2
    return True


def _check(rate: int, channels: int, param: str) -> None:
    if not _RATES[0] <= rate <= _RATES[1]:
        raise InvalidRequest(
            f"{param} has {rate} samples per second, and {_RATES[0]:,} to {_RATES[1]:,} are taken. Resample it.", param=param
        )
    if not 1 <= channels <= _MOST_CHANNELS:
        raise InvalidRequest(
            f"{param} has {channels} channels, and at most {_MOST_CHANNELS} are taken. Mix it down to one.", param=param
        )


def _too_long(param: str, most: float, seconds: float | None = None) -> InvalidRequest:
    what = f"is {seconds:,.0f} s long" if seconds is not None else "is too long"
    return InvalidRequest(f"{param} {what}, and at most {most:,g} s are taken. Cut it into pieces.", param=param)


def _cut_short(param: str) -> InvalidRequest:
    return InvalidRequest(f"{param} is cut short: its header says that there is more. Send the whole file.", param=param)


def _damaged(param: str, error: Exception) -> InvalidRequest:
    return InvalidRequest(f"{param} is sound that cannot be decoded: {_words(error)}. Send the whole file.", param=param)


def _words(error: Exception) -> str:
    text = re.sub(r"Error opening <[^>]*>: ", "", str(error))  # an object of ours, where a file's name would be
    return " ".join(text.split())[:200].rstrip(".") or type(error).__name__
