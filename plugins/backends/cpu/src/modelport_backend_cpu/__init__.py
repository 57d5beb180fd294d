"""The CPU backend: transformers and torch on the host's cores. It runs whatever the torch runtime runs, everywhere."""

from __future__ import annotations

from collections.abc import Sequence

from modelport import hookimpl
from modelport.contract import Backend
from modelport_backend_cpu.backend import CpuBackend

MODELPORT_CONTRACT = "1.0"


@hookimpl
def register_backends() -> Sequence[Backend]:
    """One backend, one device: all cores that this process may use."""
    return [CpuBackend()]
