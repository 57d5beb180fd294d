"""What NVIDIA's driver says of its devices, through NVML. No context is made on any of them."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import psutil

__all__ = ["Driver", "DriverFailed", "Gpu"]


class DriverFailed(Exception):
    """The driver cannot be asked; the message is a sentence."""


class Gpu(msgspec.Struct, frozen=True, kw_only=True):
    """One device that a process can compute on: a GPU, or an instance that MIG makes of one.

    `is_unified` says that its memory is the host's.
    """

    uuid: str
    name: str
    capability: tuple[int, int]
    total_bytes: int
    free_bytes: int
    bus: str = ""
    is_unified: bool = False


class Driver:
    """The driver, asked when a property is read.

    Args:
        nvml: The module `pynvml`, or what answers as it does; None imports it.
    """

    def __init__(self, nvml: Any = None) -> None:
        self._given = nvml

    @contextmanager
    def opened(self) -> Iterator[OpenDriver]:
        """The driver, ready to be asked.

        Raises:
            DriverFailed: there is none, or it does not work.
        """
        nvml = self._given or importlib.import_module("pynvml")
        try:
            nvml.nvmlInit()
        except nvml.NVMLError as error:
            raise DriverFailed(_why(nvml, error)) from None
        try:
            yield OpenDriver(nvml)
        except nvml.NVMLError as error:
            raise DriverFailed(f"NVIDIA's driver failed while it was asked: {error}.") from None
        finally:
            nvml.nvmlShutdown()


class OpenDriver:
    """The driver while it is open."""

    def __init__(self, nvml: Any) -> None:
        self._nvml = nvml

    @property
    def version(self) -> str:
        """The driver's own."""
        return _text(self._nvml.nvmlSystemGetDriverVersion())

    @property
    def cuda(self) -> tuple[int, int]:
        """The newest CUDA that it runs."""
        number = int(self._nvml.nvmlSystemGetCudaDriverVersion_v2())
        return number // 1000, number % 1000 // 10

    def gpus(self) -> list[Gpu]:
        """All, in the order of the bus."""
        handles = map(self._nvml.nvmlDeviceGetHandleByIndex, range(self._nvml.nvmlDeviceGetCount()))
        return [gpu for handle in handles for gpu in self._gpus_of(handle)]

    def _gpus_of(self, handle: Any) -> list[Gpu]:
        nvml = self._nvml
        capability = nvml.nvmlDeviceGetCudaComputeCapability(handle)
        bus = _text(nvml.nvmlDeviceGetPciInfo(handle).busId)
        found = []
        for part in self._instances(handle) or [handle]:
            total, free, is_unified = self._memory(part)
            found.append(
                Gpu(
                    uuid=_text(nvml.nvmlDeviceGetUUID(part)),
                    name=_text(nvml.nvmlDeviceGetName(part)),
                    capability=(int(capability[0]), int(capability[1])),
                    total_bytes=total,
                    free_bytes=free,
                    bus=bus,
                    is_unified=is_unified,
                )
            )
        return found

    def _instances(self, handle: Any) -> list[Any]:
        """Handles of the instances that MIG divides a GPU into; none where it does not."""
        nvml = self._nvml
        try:
            current, _ = nvml.nvmlDeviceGetMigMode(handle)
            most = nvml.nvmlDeviceGetMaxMigDeviceCount(handle) if current else 0
        except nvml.NVMLError:
            return []
        found = []
        for index in range(most):
            try:
                found.append(nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, index))
            except nvml.NVMLError:  # a place that no instance has
                continue
        return found

    def _memory(self, handle: Any) -> tuple[int, int, bool]:
        try:
            memory = self._nvml.nvmlDeviceGetMemoryInfo(handle)
        except self._nvml.NVMLError:  # chips that share the host's memory have none of their own to speak of
            host = psutil.virtual_memory()
            return int(host.total), int(host.available), True
        return int(memory.total), int(memory.free), False


def _why(nvml: Any, error: Any) -> str:
    reasons = {
        nvml.NVML_ERROR_LIBRARY_NOT_FOUND: "no NVIDIA driver is installed here: its library, libnvidia-ml, was not found.",
        nvml.NVML_ERROR_DRIVER_NOT_LOADED: "NVIDIA's driver is installed and not loaded: there is no NVIDIA device, or "
        "`nvidia-smi` says what is wrong.",
        nvml.NVML_ERROR_NO_PERMISSION: "this user may not open NVIDIA's devices (/dev/nvidia*): grant it access.",
        nvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH: "NVIDIA's driver was updated while the old one is loaded: restart the machine.",
    }
    return reasons.get(error.value, f"NVIDIA's driver does not work: {error}.")


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
