"""Examples of real inputs, from which the ranges of a quantised model's numbers are taken: the file, and its batches."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from modelport.contract.errors import ConfigurationError
from modelport.contract.program import ArraySpec, Forward, Program
from modelport_backend_qnn.bias import MASK
from modelport_backend_qnn.shapes import sized

__all__ = ["HOW_TO_GET_ONE", "Examples", "array_name", "batches", "digest_of", "file_of", "read"]

HOW_TO_GET_ONE = (
    "Quantising needs examples of real inputs to calibrate with: serve the model in float16 first (leave dtype at auto) with"
    ' backend_options = { record = 64, calibration = "FILE.npz" }, and the inputs of the first 64 items are written to that file.'
    " Then set the dtype again, with the same calibration."
)
Examples = dict[str, np.ndarray]
"""The inputs of one entry by name; the first axis counts the examples."""


def file_of(options: Mapping[str, Any]) -> Path | None:
    """`backends.qnn.calibration`, or None.

    Raises:
        ConfigurationError: it is no path.
    """
    given = options.get("calibration")
    if given is None:
        return None
    if not isinstance(given, str) or not given:
        raise ConfigurationError(
            f"backends.qnn.calibration is {given!r}; it must be the path of a .npz file.", param="calibration"
        )
    return Path(given).expanduser()


def digest_of(path: Path) -> str:
    """A digest of the file's contents.

    Raises:
        ConfigurationError: it cannot be read; the message says how to get one.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ConfigurationError(
            f"the calibration file {path} cannot be read ({error.strerror or error}). {HOW_TO_GET_ONE}", param="calibration"
        ) from error


def array_name(program: Program, entry: str, name: str) -> str:
    """What an input's array is called in the file: its name, and `ENTRY.NAME` where a program has several entries."""
    return name if len(program.entries) == 1 else f"{entry}.{name}"


def read(path: Path, program: Program, entry: str, inputs: Sequence[str], vocabulary: int | None) -> Examples:
    """The examples of an entry, for those of its inputs that the model takes.

    Raises:
        ConfigurationError: the file is none of NumPy's archives, or an array is missing or does not fit the program.
    """
    spec, examples = program.entries[entry], Examples()
    assert isinstance(spec, Forward)
    try:
        with np.load(path, allow_pickle=False) as archive:
            for each in spec.inputs:
                name = array_name(program, entry, each.name)
                if each.name not in inputs:
                    continue
                if name not in archive.files:
                    raise _wrong(path, f"it has no array {name!r}; it has {', '.join(sorted(archive.files)) or 'none'}")
                examples[each.name] = archive[name]
                if fault := _fault(each, examples[each.name], vocabulary):
                    raise _wrong(path, f"{name!r} {fault}")
    except (OSError, ValueError, TypeError, zipfile.BadZipFile) as error:
        raise _wrong(path, f"it is no .npz file of NumPy's ({error})") from error
    if len({len(array) for array in examples.values()}) > 1:
        counts = ", ".join(f"{len(array)} of {name}" for name, array in examples.items())
        raise _wrong(path, f"its arrays have different numbers of examples ({counts})")
    return examples


def batches(entry: Forward, examples: Examples, shape: tuple[int, int]) -> Iterator[tuple[Examples, np.ndarray]]:
    """Batches of one shape, and which of their rows are examples: the last is filled up with repetitions.

    Sequences are cut or padded to the shape's length; an example of which nothing is left is left out.
    """
    fitted = {spec.name: _resized(spec, examples[spec.name], shape) for spec in entry.inputs if spec.name in examples}
    count = len(next(iter(fitted.values())))
    kept = np.arange(count)
    if MASK in fitted:
        kept = kept[fitted[MASK].reshape(count, -1).any(1)]
    for start in range(0, len(kept), shape[0]):
        rows = kept[start : start + shape[0]]
        yield {name: array[np.resize(rows, shape[0])] for name, array in fitted.items()}, np.arange(shape[0]) < len(rows)


def _resized(spec: ArraySpec, array: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    sizes = (len(array), *sized(spec, shape)[1:])
    made = np.full(sizes, spec.pad or 0, array.dtype)
    common = tuple(slice(0, min(have, want)) for have, want in zip(array.shape, sizes, strict=True))
    made[common] = array[common]
    return made


def _fault(spec: ArraySpec, array: np.ndarray, vocabulary: int | None) -> str:
    """What is wrong with an array, as the rest of a sentence that begins with its name."""
    wanted = " × ".join(str(axis) for axis in ("examples", *spec.axes[1:]))
    fits = array.ndim == len(spec.axes) and all(
        axis == size for axis, size in zip(spec.axes[1:], array.shape[1:], strict=True) if isinstance(axis, int)
    )
    if not fits:
        return f"has the shape {' × '.join(map(str, array.shape))}, and the model takes {wanted}"
    if 0 in array.shape:
        return "is empty"
    is_float = np.dtype(spec.dtype).kind == "f"
    if array.dtype.kind not in ("f" if is_float else "iub"):
        return f"is of {array.dtype}, and the model takes {spec.dtype}"
    if is_float and not np.isfinite(array).all():
        return "has values that are not finite"
    if spec.name == "input_ids" and vocabulary is not None and (array.min() < 0 or array.max() >= vocabulary):
        return f"has tokens that are none of 0 to {vocabulary - 1}, which the model knows"
    if spec.name == MASK and not array.any():
        return "hides every token"
    return ""


def _wrong(path: Path, why: str) -> ConfigurationError:
    return ConfigurationError(f"the calibration file {path} does not fit the model: {why}.", param="calibration")
