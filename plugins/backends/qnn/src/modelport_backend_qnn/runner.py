"""A converted program, open on the NPU: one compiled graph for each entry and shape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np

from modelport.contract.array import Array, to_numpy
from modelport.contract.backend import LoadContext, Progress
from modelport.contract.errors import ConfigurationError, DeviceFailed, InvalidRequest
from modelport.contract.generate import Engine
from modelport.contract.program import Forward
from modelport.contract.runner import Limits
from modelport_backend_qnn import provider
from modelport_backend_qnn.agreement import Agreement
from modelport_backend_qnn.bias import FLOAT_HIDDEN, QUANTISED_HIDDEN
from modelport_backend_qnn.feed import fed
from modelport_backend_qnn.precision import Precision
from modelport_backend_qnn.record import Recorder
from modelport_backend_qnn.shapes import sized
from modelport_convert.array import HostArray

__all__ = ["QnnRunner"]


class QnnRunner:
    """A `Runner`. Reductions are left to the core: they are cheap on the host, and some cannot be placed on the NPU.

    Args:
        context: What to load, as the backend got it.
        folder: The converted entries.
        shapes: (items, length) that they were compiled for.
        options: The provider's.
        precision: What it was compiled to compute in.
        recorder: Told of every batch that was answered.
        progress: Told of the opening.

    Raises:
        ConfigurationError: a compiled graph cannot be opened; the message has onnxruntime's reason.
    """

    def __init__(
        self,
        context: LoadContext,
        folder: Path,
        shapes: Sequence[tuple[int, int]],
        options: Mapping[str, str],
        precision: Precision,
        recorder: Recorder | None,
        progress: Progress,
    ) -> None:
        self._hidden = QUANTISED_HIDDEN if precision.is_quantised else FLOAT_HIDDEN
        self._recorder = recorder
        self._entries = {name: entry for name, entry in context.program.entries.items() if isinstance(entry, Forward)}
        self._vocabulary = context.card.config.get("vocab_size")
        self._sessions: dict[tuple[str, tuple[int, ...]], Any] = {}
        places = [(name, entry, shape) for name, entry in self._entries.items() for shape in shapes]
        for index, (name, entry, shape) in enumerate(places):
            progress(f"opening {name} for {shape[0]} × {shape[1]}", index / len(places))
            try:
                opened = provider.session(folder / name / f"{shape[0]}x{shape[1]}.onnx", options)
            except Exception as error:  # onnxruntime's own kinds share no other base
                why = " ".join(str(error).split())[:400]
                raise ConfigurationError(f"QNN cannot open entry {name!r}: {why}") from error
            self._sessions[name, sized(entry.inputs[0], shape)] = opened
        self._limits = Limits(
            max_items=max(rows for rows, _ in shapes),
            max_tokens=max(rows * length for rows, length in shapes),
            shapes=tuple(shapes),
            max_length=max(length for _, length in shapes),
        )
        self._facts = {
            "dtype": precision.activations,
            "weights": precision.weights,
            "converter": "torch.onnx",
            "converted": str(folder),
            "shapes": ", ".join(f"{rows} × {length}" for rows, length in shapes),
            "provider": ", ".join(f"{name}={value}" for name, value in options.items()) or "its defaults",
        }
        if precision.is_quantised:
            self._facts["agreement"] = str(Agreement.read(folder))
        if recorder is not None:
            self._facts["recording"] = (
                f"done: {recorder.path} is there; remove it to record anew"
                if recorder.is_done
                else f"the inputs of the first {recorder.count} items, to {recorder.path}"
            )
        progress("loaded", 1.0)

    @property
    def limits(self) -> Limits:
        return self._limits

    @property
    def facts(self) -> Mapping[str, str]:
        return self._facts

    def submit(self, entry: str, batch: Mapping[str, Array]) -> Future[dict[str, Array]]:
        """Runs one batch in the calling thread; see the contract."""
        future: Future[dict[str, Array]] = Future()
        try:
            future.set_result(self._run(entry, {name: to_numpy(array) for name, array in batch.items()}))
        except Exception as error:
            future.set_exception(error)
        return future

    def engine(self, entry: str) -> Engine:
        raise ConfigurationError(f"entry {entry!r}: QNN does not generate.")

    def buffer(self, shape: tuple[int, ...], dtype: str) -> np.ndarray:
        return np.empty(shape, np.dtype(dtype))

    def close(self) -> None:
        self._sessions.clear()

    def _run(self, name: str, batch: Mapping[str, np.ndarray]) -> dict[str, Array]:
        entry = self._entries[name]
        size = batch[entry.inputs[0].name].shape
        if (name, size) not in self._sessions:
            raise ValueError(f"entry {name!r} was not compiled for inputs of {size}")
        session = self._sessions[name, size]
        self._check_ids(batch.get("input_ids"))
        feed = fed(session.get_inputs(), batch, self._hidden)
        names = [port.name for port in session.get_outputs()]
        try:
            raw = dict(zip(names, session.run(names, feed), strict=True))
        except Exception as error:
            raise DeviceFailed(f"the NPU failed: {' '.join(str(error).split())[:400]}") from error
        if self._recorder is not None:
            self._recorder.take(name, batch)
        outputs: dict[str, Array] = {}
        for output in entry.outputs:
            value = raw[output.source or output.name]
            outputs[output.name] = HostArray(value) if output.keep else value
        return outputs

    def _check_ids(self, ids: np.ndarray | None) -> None:
        """A row that an embedding lacks is read from somewhere else on the NPU, and nobody says so."""
        if ids is None or not isinstance(self._vocabulary, int) or not ids.size:
            return
        if int(ids.min()) < 0 or int(ids.max()) >= self._vocabulary:
            raise InvalidRequest(f"the input has a token that is none of 0 to {self._vocabulary - 1}, which the model knows.")
