"""Images of callers: what is decoded, and what is refused without harm."""

from __future__ import annotations

import base64
import io
import struct
import tracemalloc
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from modelport.contract import InvalidRequest, Media
from modelport_hf.media import decode_image, png


def encoded(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def gradient(width: int = 6, height: int = 4) -> Image.Image:
    return Image.fromarray(np.arange(width * height * 3, dtype=np.uint8).reshape(height, width, 3))


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF", "PPM"])
def test_lossless_formats_are_read_exactly(format: str) -> None:
    image = decode_image(Media(data=encoded(gradient(), format)))

    assert np.array_equal(np.asarray(image), np.asarray(gradient()))


@pytest.mark.parametrize("url", ["data:image/png;base64,{}", "data:;base64,{}", "DATA:image/png;base64,{}"])
def test_data_urls_are_read(url: str) -> None:
    data = base64.b64encode(encoded(gradient())).decode()

    assert np.array_equal(np.asarray(decode_image(Media(url=url.format(data)))), np.asarray(gradient()))


def test_a_photograph_is_turned_as_its_exif_says() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    image = decode_image(Media(data=encoded(gradient(), "PNG", exif=exif)))

    assert np.array_equal(np.asarray(image), np.rot90(np.asarray(gradient()), -1))


def test_transparency_is_dropped_as_transformers_drops_it() -> None:
    image = gradient().convert("RGBA")
    image.putalpha(0)

    assert np.array_equal(np.asarray(decode_image(Media(data=encoded(image)))), np.asarray(gradient()))


def test_sixteen_bits_of_grey_keep_their_shades() -> None:
    deep = np.array([[0, 0x4000, 0x8000, 0xFFFF]], np.uint16)

    grey = np.asarray(decode_image(Media(data=encoded(Image.fromarray(deep)))))

    assert grey[0, :, 0].tolist() == [0, 0x40, 0x80, 0xFF]


def test_a_palette_with_transparency_is_read() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putdata([0, 1])
    data = encoded(image, "PNG", transparency=b"\x00\xff")

    assert np.asarray(decode_image(Media(data=data))).tolist() == [[[255, 0, 0], [0, 0, 255]]]


def test_an_animation_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (3, 3), colour) for colour in ("red", "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])

    assert decode_image(Media(data=data)).getpixel((1, 1)) == (255, 0, 0)


def test_a_bomb_is_refused_before_it_is_decoded() -> None:
    data = encoded(Image.new("1", (30_000, 30_000)))
    tracemalloc.start()
    try:
        with pytest.raises(InvalidRequest, match="pixels") as refused:
            decode_image(Media(data=data))
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()
    assert refused.value.param == "inputs"


def test_the_limit_counts_what_the_header_says() -> None:
    with pytest.raises(InvalidRequest, match="6 × 4 pixels"):
        decode_image(Media(data=encoded(gradient())), most_pixels=23)


def test_a_header_without_pixels_is_damaged() -> None:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 5000, 5000, 8, 2, 0, 0, 0))
    with pytest.raises(InvalidRequest, match="cannot be decoded"):
        decode_image(Media(data=b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")))


@given(cut=st.integers(0, 10_000), flips=st.lists(st.tuples(st.integers(0, 10_000), st.integers(1, 255)), max_size=4))
@pytest.mark.parametrize("format", ["PNG", "JPEG", "GIF", "WEBP"])
def test_damage_is_the_caller_s_mistake_and_nothing_else(format: str, cut: int, flips: list[tuple[int, int]]) -> None:
    data = bytearray(encoded(gradient(20, 20), format))
    for at, value in flips:
        data[at % len(data)] ^= value
    try:
        found = decode_image(Media(data=bytes(data[: cut % len(data) + 1]))).mode
    except InvalidRequest as refused:
        found = refused.param or ""
    assert found in ("RGB", "inputs")


@pytest.mark.parametrize(
    ("media", "field", "words"),
    [
        (Media(), "image", "is empty"),
        (Media(data=b"x", url="data:,x"), "image", "both"),
        (Media(url="https://example.com/a.png"), "image.url", "fetches none"),
        (Media(url="data:image/png;base64,!"), "image.url", "no valid data URL"),
        (Media(url="data:image/png;base64"), "image.url", "no valid data URL"),
        (Media(url="data:image/png;base64,"), "image.url", "without data"),
    ],
)
def test_what_is_no_image_is_named(media: Media, field: str, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words) as refused:
        decode_image(media, "image")
    assert refused.value.param == field


def test_masks_survive_png() -> None:
    mask = np.array([[0, 255], [7, 0]], np.uint8)

    assert np.array_equal(np.asarray(Image.open(io.BytesIO(png(mask).data))), mask)
