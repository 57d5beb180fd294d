"""The header of a safetensors file: what is in it, and whether the file is whole, without reading a weight."""

from __future__ import annotations

import math
from pathlib import Path

import msgspec

from modelport.contract.errors import ConfigurationError

__all__ = ["Header", "read_header"]

_MOST_HEADER_BYTES = 100_000_000
"""The format's own limit."""

_NUMPY_NAMES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
}


class _Tensor(msgspec.Struct):
    dtype: str
    shape: list[int]
    data_offsets: tuple[int, int]


class Header(msgspec.Struct, frozen=True):
    """What a file holds. `elements` counts by NumPy's name of the type; integer types have the format's own name."""

    names: frozenset[str]
    elements: dict[str, int]
    size_bytes: int

    @property
    def parameters(self) -> int:
        """The number of weights of floating types; integer arrays are tables of positions and the like."""
        return sum(count for dtype, count in self.elements.items() if dtype in _NUMPY_NAMES.values())

    @property
    def packed(self) -> int:
        """The number of all elements, which a quantised checkpoint's weights are among."""
        return sum(self.elements.values())

    @property
    def dtype(self) -> str:
        """The floating type of most weights, or empty if there is none."""
        floating = {dtype: count for dtype, count in self.elements.items() if dtype in _NUMPY_NAMES.values()}
        return max(floating, key=lambda dtype: floating[dtype]) if floating else ""


def read_header(path: Path) -> Header:
    """The header of the file at `path`, checked against the file's size.

    Raises:
        ConfigurationError: the file is no safetensors file, or it was cut short.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > _MOST_HEADER_BYTES or length > size - 8:
                raise _corrupt(path, f"its header would be {length:,} bytes long in a file of {size:,}")
            head = file.read(length)
    except OSError as error:
        raise ConfigurationError(
            f"{path} cannot be read: {error.strerror or error}. Check that it exists and may be read."
        ) from error
    try:
        raw = msgspec.json.decode(head, type=dict[str, msgspec.Raw])
        tensors = {name: msgspec.json.decode(value, type=_Tensor) for name, value in raw.items() if name != "__metadata__"}
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _corrupt(path, f"its header is not what the format asks for ({error})") from error
    end = max((tensor.data_offsets[1] for tensor in tensors.values()), default=0)
    if end != size - 8 - length:
        what = "cut short" if end > size - 8 - length else "longer than its header says"
        raise _corrupt(path, f"it is {what}: {size:,} bytes instead of {end + 8 + length:,}")
    elements: dict[str, int] = {}
    for tensor in tensors.values():
        dtype = _NUMPY_NAMES.get(tensor.dtype, tensor.dtype)
        elements[dtype] = elements.get(dtype, 0) + math.prod(tensor.shape)
    return Header(frozenset(tensors), elements, size)


def _corrupt(path: Path, why: str) -> ConfigurationError:
    return ConfigurationError(f"{path} is not a whole safetensors file: {why}. Delete it and fetch it again.")
