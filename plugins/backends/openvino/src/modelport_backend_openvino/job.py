"""What the worker asks of the converter: plain data that crosses a pipe."""

from __future__ import annotations

from typing import Any

import msgspec

from modelport.contract.program import Program

__all__ = ["WEIGHTS", "Job"]

WEIGHTS = ("original", "int8", "int4")
"""How weights are stored: as in the checkpoint, or compressed by nncf; they are computed with in the worker's dtype."""


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One conversion.

    Args:
        program: Whose entries are converted, each into `OUT/<entry>/openvino_model.xml`.
        checkpoints: Folders by name.
        dtype: The checkpoint's own type; half precision stays half on disk.
        weights: One of `WEIGHTS`.
        out: An empty folder.
        trust_remote_code: Whether the checkpoint's own code may run.
        config: config.json of the main checkpoint.
    """

    program: Program
    checkpoints: dict[str, str]
    dtype: str
    weights: str
    out: str
    trust_remote_code: bool = False
    config: dict[str, Any] = {}
