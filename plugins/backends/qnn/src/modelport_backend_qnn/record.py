"""Real inputs, written down while the model serves in float16: what quantising it needs."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from modelport.contract.errors import ConfigurationError
from modelport.contract.program import ArraySpec, Forward, Program
from modelport_backend_qnn.calibration import array_name, file_of

__all__ = ["Recorder", "recorder_of"]

_MOST = 256
_log = logging.getLogger(__name__)


class Recorder:
    """Keeps the inputs of the first `count` items of every entry, then writes all of them to `path`, whole or not at all.

    Args:
        program: Whose inputs, without those that only reductions read.
        path: The file; while it is there, nothing is recorded.
        count: Items of each entry.
    """

    def __init__(self, program: Program, path: Path, count: int) -> None:
        self.path = path
        self.count = count
        self._program = program
        self._rows: dict[str, list[dict[str, np.ndarray]]] = {name: [] for name in program.entries}
        self.is_done = path.exists()

    def take(self, entry: str, batch: Mapping[str, np.ndarray]) -> None:
        """Notes the items of a batch that was answered. If the file cannot be written, the log says so and recording ends."""
        rows = self._rows[entry]
        spec = self._program.entries[entry]
        if self.is_done or len(rows) >= self.count or not isinstance(spec, Forward):
            return
        for row in range(len(batch[spec.inputs[0].name])):
            item = {each.name: batch[each.name][row] for each in spec.inputs if each.name in batch}
            if len(rows) < self.count and _is_item(spec, item):
                rows.append({name: array.copy() for name, array in item.items()})
        if all(len(rows) >= self.count for rows in self._rows.values()):
            self._finish()

    def _finish(self) -> None:
        arrays: dict[str, np.ndarray] = {}
        for entry, rows in self._rows.items():
            for spec in getattr(self._program.entries[entry], "inputs", ()):
                if spec.name in rows[0]:
                    arrays[array_name(self._program, entry, spec.name)] = _stacked(spec, [row[spec.name] for row in rows])
        try:
            _write(self.path, arrays)
            _log.info("the inputs of %d items were written to %s", self.count, self.path)
        except OSError as error:
            _log.error("the inputs of %d items could not be written to %s: %s", self.count, self.path, error)
        self.is_done = True
        for rows in self._rows.values():
            rows.clear()


def recorder_of(program: Program, options: Mapping[str, Any]) -> Recorder | None:
    """What `backends.qnn.record` asks for, or None.

    Raises:
        ConfigurationError: it is no number of items, or `calibration` names no file.
    """
    count, path = options.get("record"), file_of(options)
    if count is None:
        return None
    if type(count) is not int or not 1 <= count <= _MOST:
        raise ConfigurationError(f"backends.qnn.record is {count!r}; it must be a number of items, 1 to {_MOST}.", param="record")
    if path is None:
        raise ConfigurationError(
            'backends.qnn.record needs a file to write to: set calibration = "FILE.npz" as well.', param="calibration"
        )
    return Recorder(program, path, count)


def _is_item(spec: Forward, item: Mapping[str, np.ndarray]) -> bool:
    """Whether a row is an item: batches are filled up to their shape with rows of padding."""
    padded = [each for each in spec.inputs if each.pad is not None and each.name in item]
    return not padded or any((item[each.name] != each.pad).any() for each in padded)


def _stacked(spec: ArraySpec, rows: list[np.ndarray]) -> np.ndarray:
    """Rows of any length, padded on the right to the longest."""
    sizes = [max(row.shape[axis] for row in rows) for axis in range(rows[0].ndim)]
    made = np.full((len(rows), *sizes), spec.pad or 0, rows[0].dtype)
    for to, row in zip(made, rows, strict=True):
        to[tuple(slice(0, size) for size in row.shape)] = row
    return made


def _write(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Readable by this user alone: the inputs are those of real requests."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(draft, "wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]  # names of arrays are no options
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
