"""Images, or videos, to the model's last hidden state."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

from images import SIZES, media, opened, picture, pictures, pixels, write_processor

SETTINGS: dict[str, Any] = {}
OF_VIDEOS = ("timesformer", "videomae", "vivit")


def equip(pair: Any, model: Any, folder: Path) -> Any:
    return write_processor(pair, model, folder)


def requests(pair: Any, model: Any, tools: Any) -> list[dict[str, Any]]:
    if pair.model_type in OF_VIDEOS:
        return [{"inputs": _video(frames)} for frames in _films(model)]
    return [{"inputs": media(image)} for image in pictures()]


def expected(model: Any, tools: Any, request: dict[str, Any]) -> Any:
    seen = request["inputs"]
    if seen["url"].startswith("data:video"):
        image = next(frames for frames in _films(model) if _video(frames) == seen)
    else:
        image = opened(seen)
    return model(**pixels(model, tools, image)).last_hidden_state[0].float().numpy()


def answered(result: Any, request: dict[str, Any], index: int) -> Any:
    return result.features


def _films(model: Any) -> list[list[Any]]:
    """The frames of three videos, as many as the model takes; codecs want even sides."""
    return [
        [picture(10 * n + frame, width // 2 * 2, height // 2 * 2) for frame in range(model.config.num_frames)]
        for n, (width, height) in enumerate(SIZES)
    ]


def _video(frames: list[Any]) -> dict[str, str]:
    """An AVI that keeps every colour, as a request holds it."""
    import av

    file = io.BytesIO()
    with av.open(file, "w", format="avi") as container:
        stream = container.add_stream("rawvideo", rate=8)
        stream.width, stream.height, stream.pix_fmt = *frames[0].size, "bgr24"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_image(frame)))
        container.mux(stream.encode())
    return {"url": "data:video/x-msvideo;base64," + base64.b64encode(file.getvalue()).decode()}
