"""Images to the model's last hidden state."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from images import media, opened, pictures, pixels, write_processor

SETTINGS: dict[str, Any] = {}


def equip(pair: Any, model: Any, folder: Path) -> Any:
    return write_processor(pair, model, folder)


def requests(pair: Any, model: Any, tools: Any) -> list[dict[str, Any]]:
    return [{"inputs": media(image)} for image in pictures()]


def expected(model: Any, tools: Any, request: dict[str, Any]) -> Any:
    return model(**pixels(model, tools, opened(request["inputs"]))).last_hidden_state[0].float().numpy()


def answered(result: Any, request: dict[str, Any], index: int) -> Any:
    return result.features
