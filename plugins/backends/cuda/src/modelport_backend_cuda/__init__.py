"""The CUDA backend: torch on NVIDIA's devices, as NVIDIA's driver describes them."""

from __future__ import annotations

from collections.abc import Sequence

from modelport import hookimpl
from modelport.contract import Backend
from modelport_backend_cuda.backend import CudaBackend

MODELPORT_CONTRACT = "1.0"


@hookimpl
def register_backends() -> Sequence[Backend]:
    """One backend; a device for each GPU, or each part of one that MIG divides."""
    return [CudaBackend()]
