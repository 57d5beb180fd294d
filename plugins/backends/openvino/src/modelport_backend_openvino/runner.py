"""A converted program, compiled for one device."""

from __future__ import annotations

import gc
from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import psutil

from modelport.contract.array import Array
from modelport.contract.backend import LoadContext, Progress
from modelport.contract.errors import ConfigurationError
from modelport.contract.program import Entry, Generate
from modelport.contract.runner import Limits
from modelport_backend_openvino.bounds import most_tokens
from modelport_backend_openvino.calibrate import answers
from modelport_backend_openvino.engine import OpenVinoEngine, build_engine
from modelport_backend_openvino.exported import generator_converter
from modelport_backend_openvino.forward import CompiledForward
from modelport_backend_openvino.params import ENGINE_PARAMS
from modelport_torch.agreement import agree
from modelport_torch.dtype import fast, resolve
from modelport_torch.processor import linger

__all__ = ["OpenVinoRunner"]

_IN_FLIGHT = 2
_PRECISIONS = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}
_REDUCTIONS = frozenset(
    {"pool", "dense", "normalize", "softmax", "sigmoid", "log_softmax", "argmax", "topk", "at", "splade", "cast"}
)
_CACHE_SHARE = 0.25


class OpenVinoRunner:
    """A `Runner`: compiled forwards and generation engines of one program.

    Args:
        context: What to load, as the backend got it.
        folder: The converted entries.
        weights: How the weights are stored in them.
        progress: Told of the compilation.

    Raises:
        ConfigurationError: the device refuses the model or the precision; the message has OpenVINO's reason.
    """

    def __init__(self, context: LoadContext, folder: Path, weights: str, progress: Progress) -> None:
        device = context.devices[0]
        dtype = resolve(context.dtype, context.card.dtype, device.dtypes)
        self._device = str(context.options.get("device") or device.properties["openvino"])
        self._is_processor = device.properties["openvino"] == "CPU"
        self._facts = {
            "weights": weights,
            "openvino": ov.get_version(),
            "device": self._device,
            "converted": str(folder),
            "converter": ", ".join(sorted({_converter(entry) for entry in context.program.entries.values()})),
            "threads": str(context.threads),
        }
        self._context, self._folder, self._progress = context, folder, progress
        self._in_flight = max(int(context.options.get("in_flight", 1 if self._is_processor else _IN_FLIGHT)), 1)
        self._forwards: dict[str, CompiledForward] = {}
        self._engines: dict[str, OpenVinoEngine] = {}
        forwards = [name for name, entry in context.program.entries.items() if not isinstance(entry, Generate)]
        wanted = min((n for n in (context.max_length, context.card.limit) if n is not None), default=None)
        most = most_tokens((folder / name for name in forwards), wanted)
        self._core = ov.Core()
        self._compile(dtype)
        if context.dtype == "fast":
            self._quicken(dtype, fast(dtype, device.dtypes))
        lengths = [engine.max_length for engine in self._engines.values()]
        takes_one = any(forward.takes_one for forward in self._forwards.values())
        self._limits = Limits(
            max_items=1 if takes_one else context.max_items,
            in_flight=self._in_flight,
            reductions=_REDUCTIONS,
            params=ENGINE_PARAMS if self._engines else frozenset(),
            max_length=min(lengths, default=most),
            linger=linger(context.threads) if self._is_processor else 0.0,
            holds_gil=bool(self._engines),  # ContinuousBatchingPipeline.step() does not release it
        )
        progress("loaded", 1.0)

    @property
    def limits(self) -> Limits:
        return self._limits

    @property
    def facts(self) -> Mapping[str, str]:
        return self._facts

    def submit(self, entry: str, batch: Mapping[str, Array]) -> Future[dict[str, Array]]:
        """Starts one batch; see the contract."""
        return self._forwards[entry].submit(batch)

    def engine(self, entry: str) -> OpenVinoEngine:
        return self._engines[entry]

    def buffer(self, shape: tuple[int, ...], dtype: str) -> np.ndarray:
        return np.empty(shape, np.dtype(dtype))

    def close(self) -> None:
        self._release()

    def _compile(self, dtype: str) -> None:
        """Compiles every entry to compute in `dtype`."""
        context, folder = self._context, self._folder
        properties: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": _PRECISIONS[dtype]}
        if self._is_processor:
            properties["INFERENCE_NUM_THREADS"] = max(context.threads, 1)
        generates = [name for name, entry in context.program.entries.items() if isinstance(entry, Generate)]
        for index, (name, entry) in enumerate(context.program.entries.items()):
            self._progress(f"compiling {name}", index / len(context.program.entries))
            try:
                if isinstance(entry, Generate):
                    budget = _cache_budget(context) // len(generates)
                    engine = build_engine(context, folder / name, self._device, dtype, properties, budget)
                    self._engines[name] = engine
                    self._facts["cache_tokens"] = str(engine.load().cache_total)
                    self._facts["sampler"] = "openvino_genai"
                else:
                    compiled = self._core.compile_model(folder / name / "openvino_model.xml", self._device, properties)
                    self._forwards[name] = CompiledForward(entry, compiled, self._in_flight)
            except RuntimeError as error:
                raise ConfigurationError(f"OpenVINO cannot run entry {name!r} on {self._device}: {_short(error)}") from error
        self._facts["dtype"] = dtype

    def _quicken(self, base: str, candidate: str | None) -> None:
        """Goes over to `candidate` if that answers as `base` does; else stays, and says why."""
        if candidate is None:
            self._facts["calibration"] = f"{base} is the fastest type here"
            return
        program, config = self._context.program, self._context.card.config
        self._progress("calibrating", 0.9)
        before = answers(program, config, self._forwards, self._engines)
        if before is None:
            self._facts["calibration"] = f"{base}: no input could be made up to compare {candidate} with"
            return
        self._release()
        try:
            self._compile(candidate)
            passed, finding = agree(before, answers(program, config, self._forwards, self._engines, before))
        except ConfigurationError as error:
            passed, finding = False, error.message
        self._facts["calibration"] = f"{candidate} {'passed' if passed else 'failed'}: {finding}"
        if not passed:
            self._release()
            self._compile(base)

    def _release(self) -> None:
        for forward in self._forwards.values():
            forward.close()
        for engine in self._engines.values():
            engine.close()
        self._forwards.clear()
        self._engines.clear()
        gc.collect()


def _cache_budget(context: LoadContext) -> int:
    """Bytes that key/value caches may take in all."""
    if context.cache_bytes is not None:
        return context.cache_bytes
    return int(min(psutil.virtual_memory().available, context.devices[0].memory_free_bytes) * _CACHE_SHARE)


def _short(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 400 else text[:400] + "…"


def _converter(entry: Entry) -> str:
    """What converted it; a conversion is kept under the versions of its tools, so none is of another's making."""
    return (generator_converter() or "unknown") if isinstance(entry, Generate) else "torch.export"
