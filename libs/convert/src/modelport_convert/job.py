"""What the worker asks of the converter: plain data that crosses a pipe."""

from __future__ import annotations

from typing import Any

import msgspec

from modelport.contract.program import Program

__all__ = ["Job"]


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One conversion.

    Args:
        program: Whose entries are converted, each into a folder `OUT/<entry>`.
        checkpoints: Folders by name.
        dtype: The checkpoint's own type.
        recipe: What else decides the result (how weights are stored, shapes, the chip), as the backend names it.
        out: An empty folder.
        trust_remote_code: Whether the checkpoint's own code may run.
        config: config.json of the main checkpoint.
        stays_s: How long the process that carries it out waits for another job before it ends.
    """

    program: Program
    checkpoints: dict[str, str]
    dtype: str
    recipe: dict[str, Any]
    out: str
    trust_remote_code: bool = False
    config: dict[str, Any] = {}
    stays_s: float = 0.0
