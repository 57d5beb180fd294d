"""What the cyclic garbage collector does in a process that serves."""

from __future__ import annotations

import gc

__all__ = ["settle"]

_YOUNG = 20_000
"""Objects made between two looks at the young ones: some hundred requests. Python's 700 are less than two."""


def settle() -> None:
    """To be called once the process has what it lives with: its modules, its application, its model.

    All of that is taken out of the collector's sight: small requests would pay to have it walked through again and again. What
    requests leave behind is collected as before, less often. Only for processes that are ours alone.
    """
    gc.freeze()
    _, middle, old = gc.get_threshold()
    gc.set_threshold(_YOUNG, middle, old)
