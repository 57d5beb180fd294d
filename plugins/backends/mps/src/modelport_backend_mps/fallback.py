"""Which operators run on the processor because MPS lacks them: torch says so in a warning, once for each."""

from __future__ import annotations

import re
import warnings
from typing import Any

__all__ = ["Fallbacks"]

_SAID = re.compile(r"operator '([^']+)' is not currently supported on the MPS backend and will fall back to run on the CPU")


class Fallbacks:
    """Listens to warnings from `listen` on, for the life of the process. Every warning is still shown as before."""

    def __init__(self) -> None:
        self.operators: list[str] = []
        self._show: Any = None

    def listen(self) -> None:
        """Begins; again is nothing."""
        if self._show is None:
            self._show = warnings.showwarning
            warnings.showwarning = self._heard

    def _heard(self, message: Warning | str, *args: Any, **rest: Any) -> None:
        found = _SAID.search(str(message))
        if found and found.group(1) not in self.operators:
            self.operators.append(found.group(1))
        self._show(message, *args, **rest)
