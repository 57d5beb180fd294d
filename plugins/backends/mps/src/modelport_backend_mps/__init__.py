"""The MPS backend: torch on the GPU of Apple's own chips, which shares the memory of the system."""

from __future__ import annotations

from collections.abc import Sequence

from modelport import hookimpl
from modelport.contract import Backend
from modelport_backend_mps.backend import MpsBackend

MODELPORT_CONTRACT = "1.0"


@hookimpl
def register_backends() -> Sequence[Backend]:
    """One backend; at most one device."""
    return [MpsBackend()]
