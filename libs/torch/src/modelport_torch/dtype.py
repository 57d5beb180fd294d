"""Which type to compute in: the policy, in names only, and its translation to torch's objects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from modelport.contract.errors import ConfigurationError

if TYPE_CHECKING:
    import torch

__all__ = ["FLOATS", "fast", "has_float64", "itemsize", "resolve", "torch_dtype"]

FLOATS = ("float32", "bfloat16", "float16", "float64")
"""Names that `dtype` in the configuration may have, besides `auto` and `fast`."""

_SIZES = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2, "int8": 1, "uint8": 1, "float8_e4m3fn": 1, "float8_e5m2": 1}
_HALVES = ("bfloat16", "float16")
_WITHOUT_FLOAT64 = frozenset({"mps"})


def itemsize(dtype: str) -> int:
    """Bytes of one element; 4 for a name that is not known."""
    return _SIZES.get(dtype, 4)


def resolve(requested: str, own: str, runs: Sequence[str]) -> str:
    """The type to load in.

    Args:
        requested: `auto`, `fast` or a type's name.
        own: The checkpoint's own type.
        runs: Types that the device computes in at full speed.

    `auto` is the checkpoint's own, or float32 (the next wider that every device has) where the device lacks it. `fast`
    starts from there too: what is faster is only taken after a calibration, see `fast`. A name is taken as it is.

    Raises:
        ConfigurationError: if the name is not one of a floating-point type.

    >>> resolve("auto", "float16", ("float32", "bfloat16"))
    'float32'
    """
    if requested in ("auto", "fast"):
        return own if own in FLOATS and own in runs else "float32"
    if requested not in FLOATS:
        raise ConfigurationError(
            f"dtype {requested!r} is not known: use auto, fast or one of {', '.join(FLOATS)}.", param="dtype"
        )
    return requested


def fast(base: str, runs: Sequence[str]) -> str | None:
    """The type to try for `fast` on top of `base`, or None if `base` is the fastest already."""
    if base in _HALVES:
        return None
    return next((name for name in _HALVES if name in runs), None)


def has_float64(device: torch.device) -> bool:
    """Whether tensors on `device` can be of that type; where they cannot, the host computes what needs it."""
    return device.type not in _WITHOUT_FLOAT64


def torch_dtype(name: str) -> torch.dtype:
    """torch's object for a NumPy name.

    Raises:
        ValueError: if torch has no such type.
    """
    import torch

    found = getattr(torch, "bool" if name == "bool_" else name, None)
    if not isinstance(found, torch.dtype):
        raise ValueError(f"torch has no type {name!r}")
    return found
