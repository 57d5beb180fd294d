"""A handle to a torch tensor that stays on its device."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.utils.dlpack

from modelport.contract.array import Array
from modelport_torch.dtype import has_float64

__all__ = ["TorchArray", "to_host", "to_tensor"]


class TorchArray:
    """A `DeviceArray` over a tensor. The memory is freed when the last handle is dropped.

    NumPy has no bfloat16: `numpy()` of such a handle is float32, while `dtype` says `bfloat16`.
    """

    __slots__ = ("tensor",)

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor

    def __repr__(self) -> str:
        return f"TorchArray({self.dtype}, {self.shape}, {self.tensor.device})"

    def __getitem__(self, index: Any) -> TorchArray:
        """A view, still on the device: what `Session.split` asks for each row."""
        return TorchArray(self.tensor[index])

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.tensor.shape)

    @property
    def dtype(self) -> str:
        return str(self.tensor.dtype).removeprefix("torch.")

    def numpy(self) -> np.ndarray:
        return to_host(self.tensor)

    def __dlpack__(self, **kwargs: Any) -> Any:
        return self.tensor.__dlpack__(**kwargs)

    def __dlpack_device__(self) -> tuple[int, int]:
        kind, index = self.tensor.__dlpack_device__()
        return int(kind), int(index)


def to_host(tensor: torch.Tensor) -> np.ndarray:
    """`tensor` as a NumPy array; bfloat16 becomes float32."""
    if tensor.dtype == torch.bfloat16:
        tensor = tensor.float()
    array: np.ndarray = tensor.detach().cpu().numpy()
    return array


def to_tensor(array: Array, device: torch.device) -> torch.Tensor:
    """`array` on `device`, without a copy where that is possible."""
    if isinstance(array, TorchArray):
        return array.tensor.to(device)
    if isinstance(array, np.ndarray):
        # torch has no read-only tensors: memory that came over a socket is copied rather than written to by accident.
        array = np.ascontiguousarray(array)
        tensor = torch.from_numpy(array if array.flags.writeable else array.copy())
        if tensor.dtype == torch.float64 and not has_float64(device):
            tensor = tensor.float()
        # From page-locked memory the copy goes on while the host does; what is computed with it waits for it.
        return tensor.to(device, non_blocking=device.type == "cuda" and tensor.is_pinned())
    return torch.utils.dlpack.from_dlpack(array).to(device)
