"""Videos that callers send, decoded within bounds into some of their frames. Imports PyAV when called, and no framework."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from PIL import Image

from modelport.contract.errors import Cancelled, InvalidRequest
from modelport.contract.task import Media
from modelport_hf.media import MOST_PIXELS, media_bytes

__all__ = ["MOST_SECONDS", "MOST_VIDEO_PIXELS", "decode_video"]

MOST_SECONDS = 600
"""The longest video, in seconds."""

MOST_VIDEO_PIXELS = 4_000_000_000
"""Most pixels of all frames together: every one is decoded, twice, to find those that are spread evenly."""

_MOST_FRAMES = 20_000


def decode_video(
    media: Media,
    param: str = "inputs",
    *,
    frames: int,
    most_pixels: int = MOST_PIXELS,
    is_unwanted: Callable[[], bool] = lambda: False,
) -> list[Image.Image]:
    """`frames` frames of a video as RGB, from the first to the last, evenly spread.

    Args:
        most_pixels: Of one frame.
        is_unwanted: Asked before each frame: a long video takes seconds, in which its caller may leave.

    Raises:
        Cancelled: if it is unwanted.
        InvalidRequest: if there is no video, it is damaged, of a format that is not read, too long or too large, or has fewer
            frames.
    """
    data = media_bytes(media, param)
    count, pixels = 0, 0
    for frame in _decoded(data, param, most_pixels, is_unwanted):
        count, pixels = count + 1, pixels + frame.width * frame.height
        if pixels > MOST_VIDEO_PIXELS or count > _MOST_FRAMES:
            raise InvalidRequest(
                f"{param} has more than {_MOST_FRAMES} frames, or they have more than {MOST_VIDEO_PIXELS / 1e9:g} billion pixels"
                " together. Cut the video, or make it smaller.",
                param=param,
            )
    if count < frames:
        raise InvalidRequest(f"{param} has {count} frames, and this model takes {frames}. Send a longer video.", param=param)
    chosen = np.linspace(0, count - 1, frames).round().astype(int).tolist()
    wanted = set(chosen)
    pictures: dict[int, Image.Image] = {}
    for index, frame in enumerate(_decoded(data, param, most_pixels, is_unwanted)):
        if index in wanted:
            pictures[index] = Image.fromarray(frame.to_ndarray(format="rgb24"))
        if len(pictures) == len(wanted):
            break
    found = [pictures[index] for index in chosen]
    if len({picture.size for picture in found}) > 1:
        raise InvalidRequest(f"{param} is a video whose frames have different sizes. Encode it again.", param=param)
    return found


def _decoded(data: bytes, param: str, most_pixels: int, is_unwanted: Callable[[], bool]) -> Iterator[Any]:
    """The frames of the first video stream, one after another; none is larger than `most_pixels`."""
    import av

    try:
        # Of a format that is named nothing else is tried: some that would be are lists of further files.
        with av.open(io.BytesIO(data), "r", format=_format(data, param)) as container:
            if not container.streams.video:
                raise InvalidRequest(f"{param} has no video in it. Send one that has.", param=param)
            stream = container.streams.video[0]
            _check(stream, container.duration, param, most_pixels)
            stream.codec_context.options = {"max_pixels": str(most_pixels)}
            for frame in container.decode(stream):
                if is_unwanted():
                    raise Cancelled("The request has ended; nobody waits for its video.")
                if frame.width * frame.height > most_pixels:
                    raise _too_large(param, frame.width, frame.height, most_pixels)
                yield frame
    except (av.FFmpegError, ValueError, EOFError) as error:
        why = " ".join(str(error).split())[:200] or type(error).__name__
        raise InvalidRequest(
            f"{param} is a video that cannot be decoded: {why.rstrip('.')}. Send the whole file.", param=param
        ) from None


def _check(stream: Any, duration: int | None, param: str, most_pixels: int) -> None:
    width, height = stream.codec_context.width, stream.codec_context.height
    if width * height > most_pixels:
        raise _too_large(param, width, height, most_pixels)
    seconds = (duration or 0) / 1_000_000
    if seconds > MOST_SECONDS:
        raise InvalidRequest(f"{param} lasts {seconds:.0f} s, and at most {MOST_SECONDS} s are taken. Cut it.", param=param)


def _format(data: bytes, param: str) -> str:
    """PyAV's name of the container, by its first bytes."""
    if data[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free"):
        return "mp4"
    if data[:4] == b"\x1aE\xdf\xa3":
        return "matroska"
    if data[:4] == b"RIFF" and data[8:12] == b"AVI ":
        return "avi"
    raise InvalidRequest(f"{param} is not a video that can be read. Send MP4, WebM, MKV or AVI, whole and as it is.", param=param)


def _too_large(param: str, width: int, height: int, most: int) -> InvalidRequest:
    return InvalidRequest(
        f"{param} has frames of {width} × {height} pixels, and at most {most / 1e6:g} million are taken. Make it smaller.",
        param=param,
    )
