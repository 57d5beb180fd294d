"""The QNN backend: encoders and vision models on Qualcomm's Hexagon NPU, through onnxruntime."""

from __future__ import annotations

from collections.abc import Sequence

from modelport import hookimpl
from modelport.contract import Backend
from modelport_backend_qnn.backend import QnnBackend

MODELPORT_CONTRACT = "1.0"


@hookimpl
def register_backends() -> Sequence[Backend]:
    """One backend; its devices are the NPUs that onnxruntime reports, or one that is emulated, if asked for."""
    return [QnnBackend()]
