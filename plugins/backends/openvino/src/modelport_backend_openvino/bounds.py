"""How long a sequence may be for a converted forward to answer as the model does: written by the converter, obeyed by the runner.

What is traced goes one way. A model that asks whether a sequence is longer than something (a window, a table) would go another
way for some; the converted one does not, and would answer wrongly without a word.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from modelport.contract.errors import ConfigurationError

__all__ = ["keep_most_tokens", "most_tokens"]

_FILE = "bounds.json"


def keep_most_tokens(folder: Path, most: int) -> None:
    """Writes down that the forward in `folder` is right for so many tokens, and for no more."""
    (folder / _FILE).write_text(json.dumps({"sequence": most}), encoding="utf-8")


def most_tokens(folders: Iterable[Path], wanted: int | None) -> int | None:
    """The most tokens that all forwards in `folders` are right for, or `wanted`; None is any number.

    Raises:
        ConfigurationError: if `wanted` is more.
    """
    files = [file for folder in folders if (file := folder / _FILE).exists()]
    most = min((int(json.loads(file.read_text(encoding="utf-8"))["sequence"]) for file in files), default=None)
    if most is None or (wanted is not None and wanted <= most):
        return wanted
    if wanted is not None:
        raise ConfigurationError(
            f"once converted, this model is right for at most {most} tokens, because it computes longer texts in another way; "
            f"it is to take {wanted}. With max_length = {most} it runs here.",
            param="max_length",
        )
    return most
