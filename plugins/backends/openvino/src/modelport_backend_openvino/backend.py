"""OpenVINO's devices as a backend. Torch-free, in the server and in the worker: only the converter imports torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any, ClassVar

import psutil

from modelport.contract.backend import LoadContext, Progress, Verdict
from modelport.contract.card import ModelCard
from modelport.contract.device import Device, Probe
from modelport.contract.errors import ConfigurationError
from modelport.contract.program import Generate, Module, Program
from modelport.contract.runner import Runner
from modelport_backend_openvino.exported import cannot_export, generator_converter
from modelport_backend_openvino.params import ENGINE_PARAMS
from modelport_convert.cache import ConversionCache
from modelport_convert.conversion import ChildConverter, Convert
from modelport_torch.dtype import itemsize, resolve
from modelport_torch.support import cache_bytes_per_token, cannot_step, text_config

__all__ = ["OpenVinoBackend", "conversions"]

_WEIGHTS = ("original", "int8", "int4")
"""How weights are stored: as in the checkpoint, or compressed by nncf; they are computed with in the worker's dtype."""

_FORMAT = "5"  # grows when this plugin converts otherwise
_TOOLS = (_FORMAT, "openvino", "optimum-intel", "nncf", "torch", "transformers", "modelport-torch")
_MIB = 1 << 20
_RUNTIME_BYTES = 200 * _MIB
_BATCH_TOKENS = 2048
_CACHE_TOKENS = 8192
_CAPABILITIES = {"FP32": "float32", "BF16": "bfloat16", "FP16": "float16"}


class OpenVinoBackend:
    """Converts a program once, keeps the result, and runs it with OpenVINO.

    It is asked for by configuration (`backends = ["openvino", "cpu"]`, or `models.NAME.backend`): the first load of a model takes
    as long as its conversion.

    Args:
        convert: Carries a conversion out; a child process of its own by default.
    """

    name: ClassVar[str] = "openvino"
    rank: ClassVar[int] = 110
    imports_torch: ClassVar[bool] = False
    preload: ClassVar[tuple[str, ...]] = ("openvino", "openvino_genai")

    def __init__(self, convert: Convert | None = None) -> None:
        self._convert = convert or ChildConverter("modelport_backend_openvino.convert", "OpenVINO")

    def probe(self) -> Probe:
        """OpenVINO's own list of devices. Imports it, and with it the drivers."""
        import openvino as ov

        core = ov.Core()
        devices = []
        for index, device in enumerate(core.available_devices):
            capabilities = core.get_property(device, "OPTIMIZATION_CAPABILITIES")
            total, free = _memory(core, device)
            dtypes = tuple(_CAPABILITIES[name] for name in ("FP32", "BF16", "FP16") if name in capabilities)
            devices.append(
                Device(
                    backend=self.name,
                    index=index,
                    name=str(core.get_property(device, "FULL_DEVICE_NAME")),
                    memory_total_bytes=total,
                    memory_free_bytes=free,
                    dtypes=dtypes or ("float32",),
                    properties={"openvino": device, "capabilities": " ".join(capabilities)},
                )
            )
        reason = "" if devices else "OpenVINO finds no device."
        return Probe(devices=tuple(devices), reason=reason, versions=_versions("openvino", "openvino-genai", "optimum-intel"))

    def environment(self, devices: Sequence[Device], threads: int) -> dict[str, str]:
        """Environment variables for the worker and the converter that it starts."""
        return {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE", "TOKENIZERS_PARALLELISM": "false"}

    def verdict(self, program: Program, card: ModelCard, devices: Sequence[Device], dtype: str = "auto") -> Verdict:
        """Judges from the card alone; whether a model type converts is known when it has been tried."""
        if len(devices) != 1:
            return Verdict(answer="no", reason=f"{self.name} runs a model on one device, and {len(devices)} were asked for.")
        device = devices[0]
        dtype = resolve(dtype, card.dtype, device.dtypes)
        if dtype not in device.dtypes:
            why = f"OpenVINO does not compute in {dtype} on {device.name}; it does in {', '.join(device.dtypes)}."
            return Verdict(answer="no", reason=why, dtype=dtype)
        if reason := _refusal(program, card):
            return Verdict(answer="no", reason=reason, dtype=dtype)
        memory = _memory_bytes(program, card, dtype)
        if memory > device.memory_total_bytes:
            return Verdict(
                answer="no",
                reason=f"it needs about {memory / 2**30:.1f} GiB in {dtype}, and {device.name} has "
                f"{device.memory_total_bytes / 2**30:.1f} GiB in all.",
                memory_bytes=memory,
                dtype=dtype,
            )
        generates = any(isinstance(entry, Generate) for entry in program.entries.values())
        return Verdict(
            answer="converted",
            reason=f"OpenVINO runs it on {device.name} in {dtype}, after a conversion that is made once and kept.",
            memory_bytes=memory,
            params=ENGINE_PARAMS if generates else frozenset(),
            dtype=dtype,
        )

    def load(self, context: LoadContext, progress: Progress) -> Runner:
        """Converts what the cache does not hold, and compiles it.

        Raises:
            ConfigurationError: an option is wrong, or the model cannot be converted; the message has the converter's reason.
        """
        if reason := _refusal(context.program, context.card):
            raise ConfigurationError(reason)
        weights = str(context.options.get("weights", "original"))
        if weights not in _WEIGHTS:
            raise ConfigurationError(
                f"backends.openvino.weights is {weights!r}; it may be {', '.join(_WEIGHTS)}.", param="weights"
            )
        from modelport_backend_openvino.runner import OpenVinoRunner

        folder = conversions(context.options).get(context, {"weights": weights}, self._convert, progress)
        return OpenVinoRunner(context, folder, weights, progress)


def conversions(options: Mapping[str, Any]) -> ConversionCache:
    """Where conversions are kept, by the options of the backend."""
    return ConversionCache(OpenVinoBackend.name, options, _TOOLS)


def _refusal(program: Program, card: ModelCard) -> str | None:
    """Why it cannot run at all, as a sentence, or None."""
    if card.quantization and not all(isinstance(entry, Module) for entry in program.entries.values()):
        return (
            f"the checkpoint is quantised ({card.quantization}), and OpenVINO converts original weights only: use the original "
            "checkpoint, with backends.openvino.weights for smaller ones."
        )
    for name, entry in program.entries.items():
        if isinstance(entry, Module) and not entry.traceable:
            return f"entry {name!r} loops or draws as its inputs say, which a converted graph cannot do."
        if loose := [spec.name for spec in entry.inputs if spec.optional]:
            return f"entry {name!r} has inputs that may be left out ({', '.join(loose)}), and a converted model takes them all."
        if not isinstance(entry, Generate):
            continue
        if entry.mode == "own":
            return f"entry {name!r} needs the model's own generate loop, which OpenVINO does not have."
        if entry.head != "causal-lm":
            return f"entry {name!r} generates from more than text ({entry.head}), which OpenVINO's engine does not have."
        if entry.rules:
            return f"entry {name!r} needs rules over logits ({', '.join(entry.rules)}), which OpenVINO's engine does not have."
        if reason := cannot_step(card.config):
            return reason
        converter = generator_converter()
        if converter is None:
            return (
                "nothing here converts language models: install 'modelport-backend-openvino[convert]', or a newer transformers."
            )
        if converter != "optimum-intel" and (reason := cannot_export(card.config)):
            return reason
    return None


def _memory_bytes(program: Program, card: ModelCard, dtype: str) -> int:
    """What a worker would take: the runtime, weights as they lie in the file, one batch's activations, and caches."""
    weights = card.parameters * itemsize(card.dtype) or card.weight_bytes
    width = text_config(card.config).get("hidden_size")
    activations = _BATCH_TOKENS * (width if isinstance(width, int) else 1024) * 8 * itemsize(dtype)
    cache = 0
    if any(isinstance(entry, Generate) for entry in program.entries.values()):
        cache = cache_bytes_per_token(card.config, dtype) * max(card.limit or 0, _CACHE_TOKENS)
    return _RUNTIME_BYTES + weights + activations + cache


def _memory(core: Any, device: str) -> tuple[int, int]:
    """(total, free) bytes: the device's own, or the host's."""
    try:
        total = int(core.get_property(device, "GPU_DEVICE_TOTAL_MEM_SIZE"))
    except RuntimeError:
        memory = psutil.virtual_memory()
        return int(memory.total), int(memory.available)
    return total, total


def _versions(*distributions: str) -> dict[str, str]:
    found = {}
    for name in distributions:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found
