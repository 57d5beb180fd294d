"""onnxruntime's QNN provider: what it reports, and sessions on the NPU alone. Imports onnxruntime when called."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

__all__ = ["EMULATION", "NAME", "emulation_asked", "has_npu", "session"]

NAME = "QNNExecutionProvider"
EMULATION = "QNN_HTP_EMULATION"
"""The variable that lets the NPU be emulated by the processor: slow, for tests of function."""


def emulation_asked() -> bool:
    """Whether the environment asks for emulation."""
    return os.environ.get(EMULATION, "") not in ("", "0")


def has_npu() -> bool:
    """Whether onnxruntime reports a real one; the provider alone proves nothing, since it is also there without."""
    import onnxruntime

    return any(device.device.type == onnxruntime.OrtHardwareDeviceType.NPU for device in _devices())


def session(model: Path, options: Mapping[str, str], *, keep_as: Path | None = None) -> Any:
    """A session over `model` of which every node runs on the NPU.

    Args:
        options: The provider's.
        keep_as: Where to write the compiled model (a context file); None for a model that is one already.

    Raises:
        RuntimeError: (onnxruntime's) if a node cannot be placed there, or the file is another chip's.
    """
    import onnxruntime
    import onnxruntime_qnn

    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 4
    settings.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    if keep_as is not None:
        settings.add_session_config_entry("ep.context_enable", "1")
        settings.add_session_config_entry("ep.context_file_path", str(keep_as))
        settings.add_session_config_entry("ep.context_embed_mode", "1")
    settings.add_provider_for_devices(_devices(), {"backend_path": onnxruntime_qnn.get_qnn_htp_path(), **options})
    return onnxruntime.InferenceSession(str(model), sess_options=settings)


@cache
def _devices() -> list[Any]:
    """What the provider reports; it can be registered once in a process."""
    import onnxruntime
    import onnxruntime_qnn

    onnxruntime.register_execution_provider_library(NAME, onnxruntime_qnn.get_library_path())
    found = [device for device in onnxruntime.get_ep_devices() if device.ep_name == NAME]
    npus = [device for device in found if device.device.type == onnxruntime.OrtHardwareDeviceType.NPU]
    return npus or found
