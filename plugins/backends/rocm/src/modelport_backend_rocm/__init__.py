"""The ROCm backend: torch's HIP build on AMD's devices, as the kernel's driver describes them."""

from __future__ import annotations

from collections.abc import Sequence

from modelport import hookimpl
from modelport.contract import Backend
from modelport_backend_rocm.backend import RocmBackend

MODELPORT_CONTRACT = "1.0"


@hookimpl
def register_backends() -> Sequence[Backend]:
    """One backend; a device for each GPU that ROCm runs on."""
    return [RocmBackend()]
