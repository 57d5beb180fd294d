"""What a compiled graph is fed: a batch in the types of its ports, with a bias for the mask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from modelport_backend_qnn.bias import MASK, bias_of

__all__ = ["fed"]


def fed(ports: Sequence[Any], batch: Mapping[str, np.ndarray], hidden: float) -> dict[str, np.ndarray]:
    """An array for each of onnxruntime's ports; `hidden` is what hides a token."""
    return {port.name: _cast(port, batch[port.name], hidden) for port in ports}


def _cast(port: Any, array: np.ndarray, hidden: float) -> np.ndarray:
    if port.name == MASK:
        return np.ascontiguousarray(bias_of(array, hidden))
    return np.ascontiguousarray(array, np.int32 if "int32" in port.type else np.float32)
