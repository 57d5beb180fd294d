"""The fixed shapes that a program is compiled for. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from modelport.contract.errors import ConfigurationError
from modelport.contract.program import ArraySpec, Forward

__all__ = ["buckets", "open_axis", "sized"]

_LENGTHS = (32, 128, 512)
_WHOLE = 1 << 20


def buckets(entries: Sequence[Forward], longest: int | None, wanted: Any) -> list[tuple[int, int]]:
    """(items, length) that inputs are padded to, ascending.

    Args:
        entries: The program's.
        longest: Most tokens of a sequence, if the model says.
        wanted: `backends.qnn.shapes` of the configuration, or None for one item of 32, 128 and 512 tokens.

    Programs without a sequence have one shape, whose length stands for any.

    Raises:
        ConfigurationError: if `wanted` is no list of pairs of whole numbers.
    """
    given = [(1, length) for length in _LENGTHS] if wanted is None else wanted
    if not isinstance(given, (list, tuple)) or not given or not all(_is_pair(pair) for pair in given):
        raise ConfigurationError(
            f"backends.qnn.shapes is {wanted!r}; it must be a list of [items, tokens], such as [[1, 128], [4, 128]].",
            param="shapes",
        )
    if not any("sequence" in spec.axes for entry in entries for spec in entry.inputs):
        return [(rows, _WHOLE) for rows in sorted({rows for rows, _ in given})]
    most = longest or max(length for _, length in given)
    return sorted({(rows, min(length, most)) for rows, length in given})


def sized(spec: ArraySpec, shape: tuple[int, int]) -> tuple[int, ...]:
    """The sizes of an input in a bucket."""
    names = {"batch": shape[0], "sequence": shape[1]}
    return tuple(axis if isinstance(axis, int) else names[axis] for axis in spec.axes)


def open_axis(entry: Forward) -> str | None:
    """An axis that no bucket fixes (an image's height that depends on the image), as `input: axis`; None if there is none."""
    for spec in entry.inputs:
        for axis in spec.axes:
            if isinstance(axis, str) and axis not in ("batch", "sequence"):
                return f"{spec.name}: {axis}"
    return None


def _is_pair(pair: Any) -> bool:
    return isinstance(pair, (list, tuple)) and len(pair) == 2 and all(type(n) is int and n > 0 for n in pair)
