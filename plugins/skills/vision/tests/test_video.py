"""A video file is labelled as its frames are."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from modelport.contract import InvalidRequest, Media, ModelCard
from modelport.tasks.vision import VideoClassificationRequest
from modelport.testing.backend import card_of
from modelport.testing.skill import SkillSuite, assert_close
from modelport_backend_cpu import CpuBackend
from modelport_skill_vision import Vision


class Server(SkillSuite):
    """The real worker; collected by nobody."""

    __test__ = False
    skill = Vision()
    backend = CpuBackend()

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def card(self, folder: Path) -> ModelCard:
        return card_of(self.folder)

    def ask(self, *requests: Any) -> list[Any]:
        async def scenario(served: Any) -> list[Any]:
            asked = (served.ask("video-classification", request) for request in requests)
            return await asyncio.gather(*asked, return_exceptions=True)

        return self._serve(self.folder.parent, scenario)


def encode(pictures: list[np.ndarray]) -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as out:
        stream = out.add_stream("mpeg4", rate=10)
        stream.height, stream.width, stream.pix_fmt = *pictures[0].shape[:2], "yuv420p"
        for pixels in pictures:
            out.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        out.mux(stream.encode(None))
    return file.getvalue()


def png(pixels: np.ndarray) -> Media:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return Media(data=file.getvalue())


def test_a_file_and_its_frames_have_the_same_labels(checkpoint: Callable[[str], Path], picture: Callable[..., Media]) -> None:
    drawn = [np.asarray(Image.open(io.BytesIO(picture(seed, 64, 48).data)).convert("RGB")) for seed in range(9)]
    files = [encode(drawn), encode(drawn[::-1])]
    requests = []
    for data in files:
        with av.open(io.BytesIO(data)) as container:
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        assert len(frames) == 9
        chosen = [frames[index] for index in (0, 3, 5, 8)]  # four, evenly
        requests += [
            VideoClassificationRequest(inputs=Media(data=data)),
            VideoClassificationRequest(inputs=list(map(png, chosen))),
        ]
    requests.append(VideoClassificationRequest(inputs=Media(data=encode(drawn[:2]))))

    one, same, other, equal, short = Server(checkpoint("videomae")).ask(*requests)

    assert_close(one, same, 1e-5)
    assert_close(other, equal, 1e-5)
    assert one.results[0].score != pytest.approx(other.results[0].score, abs=1e-4), "a constant model proves nothing"
    assert isinstance(short, InvalidRequest)
    assert "has 2 frames, and this model takes 4" in str(short)
