"""How far a quantised model's answers are from the original's: measured once, when it is converted, and kept beside it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from modelport.contract.errors import ConfigurationError
from modelport_backend_qnn.precision import Precision

__all__ = ["Agreement", "Tally", "check"]

_FILE = "agreement.json"
_LEAST = 0.99


class Agreement(msgspec.Struct, frozen=True):
    """Cosines between the answers of the quantised and the original model (float32, on the processor).

    Args:
        worst: Of one output to one example.
        mean: Of all.
        answers: How many were compared, over all entries and shapes.
    """

    worst: float
    mean: float
    answers: int

    def __str__(self) -> str:
        return f"cosine with float32 {self.worst:.5f} at worst and {self.mean:.5f} on average, of {self.answers} answers"

    def write(self, folder: Path) -> None:
        (folder / _FILE).write_bytes(msgspec.json.encode(self))

    @classmethod
    def read(cls, folder: Path) -> Agreement:
        return msgspec.json.decode((folder / _FILE).read_bytes(), type=cls)


class Tally:
    """Collects cosines."""

    def __init__(self) -> None:
        self._cosines: list[float] = []

    def add(self, expected: np.ndarray, found: np.ndarray, mask: np.ndarray | None) -> None:
        """One output to one example, (…); `mask` (sequence) says which positions are real where the output has as many."""
        if mask is not None and expected.ndim > 1 and len(expected) == len(mask):
            expected, found = expected[mask != 0], found[mask != 0]
        a, b = expected.ravel().astype(np.float64), found.ravel().astype(np.float64)
        cosine = float(a @ b / max(float(np.linalg.norm(a) * np.linalg.norm(b)), 1e-12))
        self._cosines.append(cosine if np.isfinite(cosine) else -1.0)

    def join(self, other: Tally) -> None:
        """Takes over what another collected."""
        self._cosines += other._cosines

    @property
    def worst(self) -> float:
        """The smallest so far; below any that there can be while there is none."""
        return min(self._cosines, default=-2.0)

    def agreement(self) -> Agreement:
        """What was found; there must be something."""
        return Agreement(worst=self.worst, mean=sum(self._cosines) / len(self._cosines), answers=len(self._cosines))


def check(agreement: Agreement, precision: Precision, options: Mapping[str, Any]) -> None:
    """Refuses a quantised model that lost too much.

    Raises:
        ConfigurationError: its worst cosine is below `backends.qnn.least_cosine`; the message has the figures.
    """
    least = options.get("least_cosine", _LEAST)
    if type(least) not in (int, float) or not -1 <= least <= 1:
        raise ConfigurationError(f"backends.qnn.least_cosine is {least!r}; it must be a number, -1 to 1.", param="least_cosine")
    if agreement.worst >= least:
        return
    finer = {
        ("int8", "int8"): 'dtype = "int16"',
        ("int16", "int8"): 'weights = "int16"',
        ("int16", "int16"): "float16 (leave dtype at auto)",
    }[precision.activations, precision.weights]
    raise ConfigurationError(
        f"with activations in {precision.activations} and weights in {precision.weights} the model's answers are too far from the"
        f" original's: {agreement}, where backends.qnn.least_cosine is {least}. Use {finer}, calibrate with other or more"
        " examples, or lower least_cosine if that is good enough.",
        param="least_cosine",
    )
