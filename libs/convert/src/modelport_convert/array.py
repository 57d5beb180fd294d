"""An output that is kept for another entry: host memory behind a handle, where results lie in it."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["HostArray"]


class HostArray:
    """A `DeviceArray` over NumPy memory. The memory is freed when the last handle is dropped."""

    __slots__ = ("_array",)

    def __init__(self, array: np.ndarray) -> None:
        self._array = array

    def __repr__(self) -> str:
        return f"HostArray({self.dtype}, {self.shape})"

    def __getitem__(self, index: Any) -> HostArray:
        return HostArray(self._array[index])

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self._array.shape)

    @property
    def dtype(self) -> str:
        return str(self._array.dtype)

    def numpy(self) -> np.ndarray:
        return self._array

    def __dlpack__(self, **kwargs: Any) -> Any:
        return self._array.__dlpack__(**kwargs)

    def __dlpack_device__(self) -> tuple[int, int]:
        kind, index = self._array.__dlpack_device__()
        return int(kind), int(index)
