"""The words of a page, read from its image."""

from __future__ import annotations

from typing import Any

from PIL import Image

from modelport.contract import InvalidRequest

__all__ = ["read_words"]


def read_words(image: Image.Image) -> tuple[list[str], list[tuple[int, int, int, int]]]:
    """Words in reading order, and their boxes, (left, top, right, bottom) in pixels.

    Raises:
        InvalidRequest: if Tesseract or its Python package is not installed.
    """
    try:
        import pytesseract  # type: ignore[import-not-found,import-untyped,unused-ignore]
    except ImportError:
        raise _absent("the package pytesseract") from None
    try:
        found: dict[str, list[Any]] = pytesseract.image_to_data(image, output_type="dict")
    except pytesseract.TesseractNotFoundError:
        raise _absent("the program tesseract") from None
    words, boxes = [], []
    sides = zip(*(found[name] for name in ("text", "left", "top", "width", "height")), strict=True)
    for word, left, top, width, height in sides:
        if word.strip():
            words.append(word)
            boxes.append((left, top, left + width, top + height))
    return words, boxes


def _absent(what: str) -> InvalidRequest:
    return InvalidRequest(
        f"words is missing, and this server cannot read them from the image: {what} is not installed. Send words and boxes, or"
        " install Tesseract and `modelport-skill-multimodal[ocr]`.",
        param="words",
    )
