"""Videos of any container are decoded alike, evenly, and within bounds."""

from __future__ import annotations

import base64
import io
from typing import Any

import av
import numpy as np
import pytest

from modelport.contract import Cancelled, InvalidRequest, Media
from modelport_hf import video
from modelport_hf.video import decode_video


def encode(count: int = 10, size: tuple[int, int] = (64, 48), container: str = "mp4", codec: str = "mpeg4") -> bytes:
    """A video of plain frames, each a little brighter than the one before."""
    file = io.BytesIO()
    with av.open(file, "w", format=container) as out:
        stream = out.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for index in range(count):
            pixels = np.full((size[1], size[0], 3), 20 * index + 10, dtype=np.uint8)
            out.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        out.mux(stream.encode(None))
    return file.getvalue()


def brightness(pictures: list[Any]) -> list[float]:
    return [float(np.asarray(picture).mean()) for picture in pictures]


@pytest.mark.parametrize(("container", "codec"), [("mp4", "mpeg4"), ("webm", "vp8"), ("matroska", "mpeg4"), ("avi", "mpeg4")])
def test_frames_are_spread_evenly_from_the_first_to_the_last(container: str, codec: str) -> None:
    found = decode_video(Media(data=encode(10, container=container, codec=codec)), frames=4)

    assert [picture.size for picture in found] == [(64, 48)] * 4
    assert brightness(found) == pytest.approx([10, 70, 130, 190], abs=6)


def test_a_data_url_and_all_frames() -> None:
    url = "data:video/mp4;base64," + base64.b64encode(encode(5)).decode()
    assert brightness(decode_video(Media(url=url), frames=5)) == pytest.approx([10, 30, 50, 70, 90], abs=6)


def silent_sound() -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as out:
        stream = out.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), dtype=np.float32), format="fltp", layout="mono")
        frame.rate = 16000
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return file.getvalue()


BAD = {
    "empty": (b"", "is empty"),
    "noise": (b"no video at all", "is not a video that can be read"),
    "list of others": (b"#EXTM3U\n#EXTINF:1\nfile:///etc/passwd\n", "is not a video that can be read"),
    "beginning": (encode()[:200], "cannot be decoded|has 0 frames"),
    "broken": (encode()[:32] + bytes(2000), "cannot be decoded|has 0 frames"),
    "sound alone": (silent_sound(), "has no video in it"),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_is_no_video_is_refused_in_a_sentence(kind: str) -> None:
    data, message = BAD[kind]
    with pytest.raises(InvalidRequest, match=message) as refused:
        decode_video(Media(data=data), "inputs", frames=4)
    assert refused.value.param == "inputs"


def test_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    media = Media(data=encode(10))
    with pytest.raises(InvalidRequest, match="has 10 frames, and this model takes 16"):
        decode_video(media, frames=16)
    with pytest.raises(InvalidRequest, match="frames of 64 × 48 pixels"):
        decode_video(media, frames=4, most_pixels=1000)
    for name, value, message in (
        ("MOST_VIDEO_PIXELS", 5 * 64 * 48, "more than"),
        ("_MOST_FRAMES", 5, "more than 5 frames"),
        ("MOST_SECONDS", 0.5, "lasts 1 s"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(video, name, value)
            with pytest.raises(InvalidRequest, match=message):
                decode_video(media, frames=4)


def test_a_video_that_nobody_waits_for_is_not_decoded_to_its_end() -> None:
    asked = iter([False] * 3 + [True] * 100)
    with pytest.raises(Cancelled):
        decode_video(Media(data=encode(10)), frames=4, is_unwanted=lambda: next(asked))
    assert sum(1 for _ in asked) == 99, "at the next frame"
