"""Images that callers send, decoded within bounds. Imports Pillow, and no framework.

What cannot be decoded is the caller's mistake: every failure is an `InvalidRequest` that names the field.
"""

from __future__ import annotations

import base64
import binascii
import io
from urllib.parse import unquote_to_bytes

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from modelport.contract.errors import InvalidRequest
from modelport.contract.task import Media

__all__ = ["MOST_PIXELS", "decode_image", "media_bytes", "png"]

MOST_PIXELS = 50_000_000
"""Most pixels of an image, decoded or not: 150 MB of memory."""

_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
_BOMBS = (Image.DecompressionBombError, Image.DecompressionBombWarning)


def decode_image(media: Media, param: str = "inputs", most_pixels: int = MOST_PIXELS) -> Image.Image:
    """The image as RGB, turned as its EXIF orientation says; of an animation, the first frame.

    Transparency is dropped, as transformers does: the colours beneath it count. 16 bits of grey become 8.

    Raises:
        InvalidRequest: if there is no image, it is damaged, of a format that is not read, or has more than `most_pixels`,
            which its header tells: such an image is not decoded.
    """
    data = media_bytes(media, param)
    try:
        image = Image.open(io.BytesIO(data), formats=_FORMATS)
    except UnidentifiedImageError:
        raise InvalidRequest(
            f"{param} is not an image that can be read. Send one of {', '.join(_FORMATS)}, whole and as it is.", param=param
        ) from None
    except _BOMBS:
        raise _too_large(param, most_pixels) from None
    except Exception as error:
        raise _damaged(param, error) from None
    with image:
        if image.width * image.height > most_pixels:
            raise _too_large(param, most_pixels, image.size)
        try:
            return _as_rgb(ImageOps.exif_transpose(image))
        except _BOMBS:
            raise _too_large(param, most_pixels) from None
        except Exception as error:  # decoders of damaged bytes raise whatever they stumble on
            raise _damaged(param, error) from None


def media_bytes(media: Media, param: str = "inputs") -> bytes:
    """The bytes of `media`: its own, or those of its data URL.

    Raises:
        InvalidRequest: if it has none, both, or an URL of another kind.
    """
    if media.data and media.url:
        raise InvalidRequest(f"{param} has both data and url; send one of them.", param=param)
    if media.data:
        return media.data
    if not media.url:
        raise InvalidRequest(f"{param} is empty; send the file's bytes as data, or a data URL as url.", param=param)
    if not media.url[:5].lower() == "data:":
        raise InvalidRequest(
            f"{param} is the address of a file, and this server fetches none. Send the bytes as data, or as a data URL.",
            param=f"{param}.url",
        )
    head, comma, body = media.url.partition(",")
    try:
        if not comma:
            raise ValueError("it has no comma")
        data = base64.b64decode(unquote_to_bytes(body), validate=True) if head.endswith(";base64") else unquote_to_bytes(body)
    except (binascii.Error, ValueError) as error:
        raise InvalidRequest(f"{param} is no valid data URL ({error}). Encode it again.", param=f"{param}.url") from None
    if not data:
        raise InvalidRequest(f"{param} is a data URL without data. Send the file's bytes.", param=f"{param}.url")
    return data


def png(pixels: np.ndarray) -> Media:
    """A grey PNG of (height, width) uint8."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return Media(data=file.getvalue(), mime="image/png")


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        image = Image.fromarray(np.clip(values >> 8, 0, 255).astype(np.uint8))
    elif image.mode == "F":
        raise ValueError("its pixels are floating point numbers, whose range nobody tells")
    elif image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")


def _too_large(param: str, most: int, size: tuple[int, int] | None = None) -> InvalidRequest:
    what = f"has {size[0]} × {size[1]} pixels" if size else "has too many pixels"
    return InvalidRequest(f"{param} {what}, and at most {most / 1e6:g} million are taken. Make the image smaller.", param=param)


def _damaged(param: str, error: Exception) -> InvalidRequest:
    why = " ".join(str(error).split())[:200] or type(error).__name__
    return InvalidRequest(f"{param} is an image that cannot be decoded: {why.rstrip('.')}. Send the whole file.", param=param)
