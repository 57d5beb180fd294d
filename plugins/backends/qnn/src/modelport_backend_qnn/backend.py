"""Qualcomm's NPU as a backend. Torch-free, in the server and in the worker: only the converter imports torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any, ClassVar

import msgspec
import numpy as np
import psutil

from modelport.contract.backend import LoadContext, Progress, Verdict
from modelport.contract.card import ModelCard
from modelport.contract.device import Device, Probe
from modelport.contract.errors import ConfigurationError
from modelport.contract.program import Forward, Generate, Module, Program
from modelport.contract.runner import Runner
from modelport_backend_qnn import provider
from modelport_backend_qnn.agreement import Agreement, check
from modelport_backend_qnn.bare import bare
from modelport_backend_qnn.calibration import HOW_TO_GET_ONE, digest_of, file_of
from modelport_backend_qnn.precision import DTYPES, FLOAT, INTEGERS, precision_of
from modelport_backend_qnn.record import recorder_of
from modelport_backend_qnn.shapes import buckets, open_axis
from modelport_convert.cache import ConversionCache
from modelport_convert.conversion import ChildConverter, Convert
from modelport_convert.job import Job
from modelport_torch.dtype import itemsize

__all__ = ["QnnBackend", "provider_options"]

_FORMAT = "1"  # grows when this plugin converts otherwise
_TOOLS = (_FORMAT, "onnx", "onnxscript", "onnxruntime", "onnxruntime-qnn", "torch", "transformers", "modelport-torch")
_RUNTIME_BYTES = 300 << 20
_EMULATED = {"soc_model": "60", "htp_arch": "73"}


class QnnBackend:
    """Exports a program once for each of a few fixed shapes, has QNN compile it, keeps the result and runs it.

    It is asked for by configuration (`models.NAME.backend = "qnn"`): the first load of a model takes as long as its conversion.

    Args:
        convert: Carries a conversion out; a child process of its own by default.
    """

    name: ClassVar[str] = "qnn"
    rank: ClassVar[int] = 120
    imports_torch: ClassVar[bool] = False
    preload: ClassVar[tuple[str, ...]] = ("onnxruntime",)

    def __init__(self, convert: Convert | None = None) -> None:
        self._convert = convert or ChildConverter("modelport_backend_qnn.convert", "QNN")

    def probe(self) -> Probe:
        """The NPU that onnxruntime reports, or an emulated one if the environment asks for it."""
        versions = _versions("onnxruntime", "onnxruntime-qnn")
        try:
            found = provider.has_npu()
        except ImportError as error:
            return Probe(reason=f"onnxruntime-qnn cannot be imported: {error}.", versions=versions)
        memory = psutil.virtual_memory()
        common: dict[str, Any] = {
            "backend": self.name,
            "memory_total_bytes": int(memory.total),
            "memory_free_bytes": int(memory.available),
            "dtypes": DTYPES,
        }
        if found:
            return Probe(devices=(Device(name="Qualcomm Hexagon NPU", **common),), versions=versions)
        if provider.emulation_asked():
            emulated = Device(name="Qualcomm Hexagon NPU, emulated", properties={"emulated": True, **_EMULATED}, **common)
            return Probe(devices=(emulated,), versions=versions)
        return Probe(
            reason="onnxruntime reports no Hexagon NPU. Where the wheel brings QNN's emulation of one (Linux on x86-64), "
            f"{provider.EMULATION}=1 in the server's environment makes it a device, slow and for tests.",
            versions=versions,
        )

    def environment(self, devices: Sequence[Device], threads: int) -> dict[str, str]:
        """Environment variables for the worker and the converter that it starts."""
        return {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE", "TOKENIZERS_PARALLELISM": "false"}

    def verdict(self, program: Program, card: ModelCard, devices: Sequence[Device], dtype: str = "auto") -> Verdict:
        """Judges from the card alone; whether QNN can place every node is known when it has been tried."""
        runs = dtype if dtype in DTYPES else FLOAT
        if reason := _refusal(program, card, devices, dtype):
            return Verdict(answer="no", reason=reason, dtype=runs)
        parameters = card.parameters or card.weight_bytes // itemsize(card.dtype)
        memory = _RUNTIME_BYTES + 2 * parameters * np.dtype(runs).itemsize
        slow = ", emulated by the processor: for tests only" if devices[0].properties.get("emulated") else ""
        conversion = "quantisation" if runs in INTEGERS else "conversion"
        return Verdict(
            answer="converted",
            reason=f"QNN runs it on {devices[0].name} in {runs}{slow}, after a {conversion} that is made once and kept.",
            memory_bytes=memory,
            dtype=runs,
        )

    def load(self, context: LoadContext, progress: Progress) -> Runner:
        """Converts what the cache does not hold, and opens it.

        Raises:
            ConfigurationError: an option is wrong, or the model cannot be converted; the message has the reason.
        """
        if reason := _refusal(context.program, context.card, context.devices, "auto"):
            raise ConfigurationError(reason)
        from modelport_backend_qnn.runner import QnnRunner

        entries = [entry for entry in context.program.entries.values() if isinstance(entry, Forward)]
        limits = [n for n in (context.max_length, context.card.limit) if n is not None]
        shapes = buckets(entries, min(limits, default=None), context.options.get("shapes"))
        options = provider_options(context.devices[0], context.options)
        precision = precision_of(context.dtype, context.options)
        bared = msgspec.structs.replace(context, program=bare(context.program))
        recipe: dict[str, Any] = {"shapes": shapes, "provider": options}
        examples, recorder, where = file_of(context.options), None, dict[str, str]()
        if not precision.is_quantised:
            recorder = recorder_of(bared.program, context.options)
        elif examples is None:
            raise ConfigurationError(f"dtype {context.dtype} needs calibration. {HOW_TO_GET_ONE}", param="calibration")
        else:
            recipe |= {"precision": msgspec.to_builtins(precision), "calibration": digest_of(examples)}
            where = {"examples": str(examples.absolute())}

        def convert(job: Job, progress: Progress) -> None:
            """What the examples are names a conversion; where they lie does not."""
            self._convert(msgspec.structs.replace(job, recipe=job.recipe | where), progress)

        folder = ConversionCache(self.name, context.options, _TOOLS).get(bared, recipe, convert, progress)
        if precision.is_quantised:
            check(Agreement.read(folder), precision, context.options)
        return QnnRunner(context, folder, shapes, options, precision, recorder, progress)


def provider_options(device: Device, options: Mapping[str, Any]) -> dict[str, str]:
    """What the provider is told of the chip: the emulated one's kind, and `backends.qnn.provider_options`."""
    own = {name: str(device.properties[name]) for name in _EMULATED if name in device.properties}
    given = options.get("provider_options", {})
    if not isinstance(given, dict):
        raise ConfigurationError(
            f"backends.qnn.provider_options is {given!r}; it must be a table of the provider's options.", param="provider_options"
        )
    return own | {str(name): str(value) for name, value in given.items()}


def _refusal(program: Program, card: ModelCard, devices: Sequence[Device], dtype: str) -> str | None:
    """Why it cannot run at all, as a sentence, or None."""
    if len(devices) != 1:
        return f"qnn runs a model on one device, and {len(devices)} were asked for."
    if dtype not in ("auto", "fast", *DTYPES):
        return (
            f"the NPU computes in {FLOAT}, or quantised in {' or '.join(INTEGERS)}, and {dtype} was asked for; leave dtype at"
            f" auto to accept {FLOAT}."
        )
    if card.quantization:
        return f"the checkpoint is quantised ({card.quantization}), and QNN converts original weights only."
    for name, entry in program.entries.items():
        if isinstance(entry, Generate):
            return (
                f"entry {name!r} generates token by token: its cache grows with every token, and the NPU runs graphs of fixed"
                " shapes. QNN serves encoders and vision models."
            )
        if isinstance(entry, Module):
            return f"entry {name!r} is a module of its own; QNN converts models of transformers only."
        if axis := open_axis(entry):
            return (
                f"entry {name!r} takes inputs of any size ({axis}), and the NPU runs graphs of fixed shapes: it takes models"
                " whose image processor makes every image the same size."
            )
    return None


def _versions(*distributions: str) -> dict[str, str]:
    found = {}
    for name in distributions:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found
