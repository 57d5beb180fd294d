"""The OpenVINO backend: Intel's inference engine, on every device that it finds, without torch in the worker."""

from __future__ import annotations

from collections.abc import Sequence

from modelport import hookimpl
from modelport.contract import Backend
from modelport_backend_openvino.backend import OpenVinoBackend

MODELPORT_CONTRACT = "1.0"


@hookimpl
def register_backends() -> Sequence[Backend]:
    """One backend; its devices are those of OpenVINO's own list."""
    return [OpenVinoBackend()]
