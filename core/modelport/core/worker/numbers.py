"""Whether what a device computed are numbers at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from modelport.contract.array import Array
from modelport.contract.errors import NotNumbers
from modelport.contract.session import Item

__all__ = ["not_numbers", "rows_that_are_numbers"]

_LARGE = 1 << 16

Outputs = dict[str, Array]


def rows_that_are_numbers(entry: str, rows: Sequence[Outputs], items: Sequence[Item]) -> list[Outputs | NotNumbers]:
    """The rows, and an error in place of each with a NaN. Of what is longer than an item, only the item's own part counts:
    what a model makes of padding is nobody's concern."""
    checked: list[Outputs | NotNumbers] = []
    for row, item in zip(rows, items, strict=True):
        own = {name: array[: item.cost] if len(array.shape) > 1 else array for name, array in row.items()}
        checked.append(_failure(entry) if not_numbers(own) else row)
    return checked


def not_numbers(outputs: Mapping[str, Array]) -> bool:
    """Whether there is a NaN among `outputs`. Arrays on a device are not fetched for it, and of large ones only the first place
    of the last axis is looked at: layers mix all places, so that one NaN is everywhere."""
    return any(isinstance(array, np.ndarray) and array.dtype.kind == "f" and _has_nan(array) for array in outputs.values())


def _has_nan(array: np.ndarray) -> bool:
    if array.size > _LARGE:
        array = array[..., 0]
    with np.errstate(over="ignore", invalid="ignore"):
        total = array.sum()  # NaN goes through sums, and so does ∞ − ∞, which is no fault; nor are many of the lowest number
    return bool(np.isnan(total)) and bool(np.isnan(array).any())


def _failure(entry: str) -> NotNumbers:
    return NotNumbers(
        f"The device computed NaN for this request (entry {entry!r}): either it is at fault, or the type it computes in is too "
        "narrow for the model. Try dtype = 'float32', or another backend."
    )
