"""A device that runs out of memory or is lost: torch's errors as the contract's, and giving back what torch keeps for itself."""

from __future__ import annotations

import gc

import torch

from modelport.contract.errors import DeviceFailed, OutOfMemory

__all__ = ["as_lost", "as_out_of_memory", "is_out_of_memory", "trim"]

# What libraries say that have no type of their own for it: torch's host allocator, MPS, cuBLAS, the system.
_MARKS = (
    "out of memory",
    "can't allocate memory",
    "cannot allocate memory",
    "not enough memory",
    "status_alloc_failed",
    "std::bad_alloc",
)


_LOST = ("cuda error", "hip error", "device-side assert", "cublas_status_", "cudnn_status_", "mps: ")


def as_lost(error: BaseException) -> DeviceFailed | None:
    """The contract's error for a device that has failed: every further call of this process to it fails as well."""
    text = " ".join(str(error).split())
    if not isinstance(error, RuntimeError) or is_out_of_memory(error) or not any(mark in text.lower() for mark in _LOST):
        return None
    return DeviceFailed(f"The device is lost to this process: {text[:200]}")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that memory ran out, on whatever device."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError | OSError) and any(mark in str(error).lower() for mark in _MARKS)


def as_out_of_memory(error: BaseException, what: str) -> OutOfMemory:
    """The contract's error, without a cause: a traceback would hold the tensors that are to be given back."""
    return OutOfMemory(f"{what} did not fit in memory: {' '.join(str(error).split())[:200]}")


def trim(device: torch.device) -> None:
    """Gives back what nobody holds any more, torch's own reserve of the device included."""
    gc.collect()
    if device.type in ("cuda", "mps", "xpu"):
        getattr(torch, device.type).empty_cache()
