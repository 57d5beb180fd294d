"""When an answer agrees with the reference, and when a reference proves anything at all."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

COSINE = 0.999
NEAR = 2e-3
"""The largest difference of two scores, relative or absolute."""


def difference(expected: Any, got: Any, where: str = "") -> str | None:
    """Where two answers part, as a sentence without an end, or None if they agree. Arrays agree by cosine and size, numbers
    within `NEAR`, all else if it is equal."""
    at = f" at {where}" if where else ""
    if isinstance(expected, np.ndarray):
        return _arrays(expected, np.asarray(got), at)
    if isinstance(expected, float):
        near = isinstance(got, (int, float)) and math.isclose(expected, got, rel_tol=NEAR, abs_tol=NEAR)
        return None if near else f"{got} is not {expected:.6g}{at}"
    if isinstance(expected, Mapping):
        if not isinstance(got, Mapping) or set(expected) != set(got):
            return f"{_short(got)} has not the keys of {_short(expected)}{at}"
        return _first(difference(expected[key], got[key], f"{where}.{key}".lstrip(".")) for key in expected)
    if isinstance(expected, Sequence) and not isinstance(expected, str):
        if not isinstance(got, Sequence) or len(got) != len(expected):
            return f"{_short(got)} is not as long as {_short(expected)}{at}"
        return _first(difference(one, other, f"{where}[{n}]") for n, (one, other) in enumerate(zip(expected, got, strict=True)))
    return None if expected == got else f"{_short(got)} is not {_short(expected)}{at}"


def proves_nothing(answers: Sequence[Any]) -> str | None:
    """Why equal answers would say nothing: the reference is not finite, or the same for every input."""
    for answer in answers:
        if any(not np.isfinite(array).all() for array in _numbers(answer)):
            return "the reference is not finite"
    if all(difference(answers[0], other) is None for other in answers[1:]):
        return "the reference says the same of every input"
    return None


def _arrays(expected: np.ndarray, got: np.ndarray, at: str) -> str | None:
    if expected.shape != got.shape:
        return f"the shape {got.shape} is not {expected.shape}{at}"
    one, other = (array.astype(np.float64).ravel() for array in (expected, got))
    if not np.isfinite(other).all():
        return f"not finite{at}"
    sizes = float(np.linalg.norm(one)), float(np.linalg.norm(other))
    if min(sizes) == 0:
        return None if max(sizes) == 0 else f"norms {sizes[1]:.3g} and {sizes[0]:.3g}{at}"
    cosine = float(one @ other) / (sizes[0] * sizes[1])
    if cosine < COSINE:
        return f"cosine {cosine:.4f}{at}"
    return None if math.isclose(*sizes, rel_tol=0.01) else f"norms {sizes[1]:.4g} and {sizes[0]:.4g}{at}"


def _numbers(answer: Any) -> list[np.ndarray]:
    if isinstance(answer, (np.ndarray, float)):
        return [np.asarray(answer, np.float64)]
    if isinstance(answer, Mapping):
        answer = list(answer.values())
    if isinstance(answer, Sequence) and not isinstance(answer, str):
        return [array for part in answer for array in _numbers(part)]
    return []


def _first(found: Any) -> str | None:
    return next((sentence for sentence in found if sentence is not None), None)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 120 else text[:120] + "…"
