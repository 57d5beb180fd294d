"""NVML as it answers on machines that are described in records: what it returns there, in its own types and errors."""

# ruff: noqa: N802 (NVML's own names)

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest

from modelport_backend_cuda.backend import CudaBackend
from modelport_backend_cuda.driver import Driver
from modelport_torch.installed import TorchBuild

RECORDS = Path(__file__).parent / "records"


class RecordedNvml:
    """As much of `pynvml` as the driver is asked for. A record is JSON; MIG instances are devices inside their GPU."""

    def __init__(self, record: dict[str, Any]) -> None:
        self._record = record
        self.is_open = False

    def __getattr__(self, name: str) -> Any:
        if name.startswith("NVML"):
            return getattr(pynvml, name)
        raise AttributeError(name)

    def nvmlInit(self) -> None:
        if "error" in self._record:
            raise pynvml.NVMLError(self._record["error"])
        self.is_open = True

    def nvmlShutdown(self) -> None:
        self.is_open = False

    def nvmlSystemGetDriverVersion(self) -> str:
        return str(self._record["driver"])

    def nvmlSystemGetCudaDriverVersion_v2(self) -> int:
        return int(self._record["cuda"])

    def nvmlDeviceGetCount(self) -> int:
        return len(self._record["devices"])

    def nvmlDeviceGetHandleByIndex(self, index: int) -> dict[str, Any]:
        assert self.is_open
        return dict(self._record["devices"][index])

    def nvmlDeviceGetCudaComputeCapability(self, handle: dict[str, Any]) -> tuple[int, int]:
        return tuple(handle["capability"])

    def nvmlDeviceGetPciInfo(self, handle: dict[str, Any]) -> Any:
        return SimpleNamespace(busId=handle["bus"])

    def nvmlDeviceGetUUID(self, handle: dict[str, Any]) -> str:
        return str(handle["uuid"])

    def nvmlDeviceGetName(self, handle: dict[str, Any]) -> str:
        return str(handle["name"])

    def nvmlDeviceGetMemoryInfo(self, handle: dict[str, Any]) -> Any:
        if "total" not in handle:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return SimpleNamespace(total=handle["total"], free=handle["free"], used=handle["total"] - handle["free"])

    def nvmlDeviceGetMigMode(self, handle: dict[str, Any]) -> tuple[int, int]:
        if "mig" not in handle:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return bool(handle["mig"]), bool(handle["mig"])

    def nvmlDeviceGetMaxMigDeviceCount(self, handle: dict[str, Any]) -> int:
        return 7

    def nvmlDeviceGetMigDeviceHandleByIndex(self, handle: dict[str, Any], index: int) -> dict[str, Any]:
        if index >= len(handle["mig"]):
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
        return dict(handle["mig"][index])


CUDA_BUILD = TorchBuild(
    version="2.14.0+cu130", cuda="13.0", architectures=("sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120")
)


@pytest.fixture
def backend() -> Callable[..., CudaBackend]:
    """`backend("h200", build=…, CUDA_VISIBLE_DEVICES="0")`: the backend on a machine of a record."""

    def make(record: str | dict[str, Any], build: TorchBuild = CUDA_BUILD, **environ: str) -> CudaBackend:
        found = json.loads((RECORDS / f"{record}.json").read_text()) if isinstance(record, str) else record
        return CudaBackend(Driver(RecordedNvml(found)), lambda: build, environ)

    return make
