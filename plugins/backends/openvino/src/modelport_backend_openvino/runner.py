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
from modelport.contract.program import Generate
from modelport.contract.runner import Limits
from modelport_backend_openvino.engine import OpenVinoEngine, build_engine
from modelport_backend_openvino.forward import CompiledForward
from modelport_backend_openvino.params import ENGINE_PARAMS
from modelport_torch.dtype import resolve

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
        self._device = str(device.properties["openvino"])
        self._facts = {
            "dtype": dtype,
            "weights": weights,
            "openvino": ov.get_version(),
            "device": self._device,
            "converted": str(folder),
            "threads": str(context.threads),
        }
        if context.dtype == "fast":
            self._facts["calibration"] = f'none is made here; dtype = "fast" computes in {dtype}'
        properties: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": _PRECISIONS[dtype]}
        if self._device == "CPU":
            properties["INFERENCE_NUM_THREADS"] = max(context.threads, 1)
        self._forwards: dict[str, CompiledForward] = {}
        self._engines: dict[str, OpenVinoEngine] = {}
        self._core = ov.Core()
        in_flight = max(int(context.options.get("in_flight", 1 if self._device == "CPU" else _IN_FLIGHT)), 1)
        generates = [name for name, entry in context.program.entries.items() if isinstance(entry, Generate)]
        for index, (name, entry) in enumerate(context.program.entries.items()):
            progress(f"compiling {name}", index / len(context.program.entries))
            try:
                if isinstance(entry, Generate):
                    budget = _cache_budget(context) // len(generates)
                    engine = build_engine(context, folder / name, self._device, dtype, properties, budget)
                    self._engines[name] = engine
                    self._facts["cache_tokens"] = str(engine.load().cache_total)
                    self._facts["sampler"] = "openvino_genai"
                else:
                    compiled = self._core.compile_model(folder / name / "openvino_model.xml", self._device, properties)
                    self._forwards[name] = CompiledForward(entry, compiled, in_flight)
            except RuntimeError as error:
                raise ConfigurationError(f"OpenVINO cannot run entry {name!r} on {self._device}: {_short(error)}") from error
        lengths = [engine.max_length for engine in self._engines.values()]
        own = min((n for n in (context.max_length, context.card.limit) if n is not None), default=None)
        self._limits = Limits(
            max_items=context.max_items,
            in_flight=in_flight,
            reductions=_REDUCTIONS,
            params=ENGINE_PARAMS if generates else frozenset(),
            max_length=min(lengths, default=own),
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
