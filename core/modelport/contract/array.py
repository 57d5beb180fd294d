"""Arrays that cross the waist: NumPy on the host, or a handle to memory on a device."""

from __future__ import annotations

from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np

__all__ = ["Array", "DeviceArray", "to_numpy"]


@runtime_checkable
class DeviceArray(Protocol):
    """Memory that stays where a backend put it, freed when the last reference is dropped.

    `dtype` is NumPy's name of the type, `bfloat16` included. `numpy()` copies to the host and is to be called only
    on what is read; `__dlpack__` hands the memory to another library without a copy. Indexing as NumPy does (a row, or `None`
    for a new axis) gives another handle on the same memory.
    """

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> str: ...
    def numpy(self) -> np.ndarray: ...
    def __getitem__(self, index: Any) -> Any: ...
    def __dlpack__(self, **kwargs: Any) -> Any: ...


Array: TypeAlias = "np.ndarray | DeviceArray"


def to_numpy(array: Array) -> np.ndarray:
    """`array` on the host: itself if it is NumPy already, else a copy."""
    return array if isinstance(array, np.ndarray) else array.numpy()
