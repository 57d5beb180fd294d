"""The converter: the one place where this backend meets torch. Run as `python -m modelport_backend_openvino.convert`."""

from __future__ import annotations

import gc
import importlib
import shutil
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelport.contract.program import Forward, Generate, Module
from modelport_backend_openvino.bounds import keep_most_tokens
from modelport_backend_openvino.comparison import compare_generator
from modelport_backend_openvino.exported import exported, generator_converter
from modelport_convert.child import Tell, answer
from modelport_convert.job import Job

if TYPE_CHECKING:
    import openvino as ov
    from torch.export import ExportedProgram

    from modelport_torch.traced import Traced

__all__ = ["convert", "preload"]

_BITS = {"int8": 8, "int4": 4}
_HALVES = ("float16", "bfloat16")
_ALIKE = 0.999
"""The least cosine of what a converted model gives and what it should."""

_ENDLESS = 1 << 31


def convert(job: Job, tell: Tell) -> None:
    """Converts every entry, in this process.

    Raises:
        ConfigurationError, ValueError, RuntimeError, ImportError: from what the model needs and the tools lack.
    """
    _do_without_telemetry()
    tell("importing torch and OpenVINO", 0.02)
    for index, (name, entry) in enumerate(job.program.entries.items()):
        tell(f"converting {name}", 0.1 + 0.8 * index / len(job.program.entries))
        folder = Path(job.out) / name
        folder.mkdir()
        checkpoint = Path(job.checkpoints[entry.checkpoint])
        with warnings.catch_warnings():  # tracing warns of every value that it takes for constant
            warnings.simplefilter("ignore")
            if isinstance(entry, Generate):
                _convert_generator(job, entry, checkpoint, folder)
            else:
                _convert_forward(job, name, entry, checkpoint, folder)
    tell("converted", 0.95)


def preload() -> None:
    """Imports what every conversion needs, and what those of language models do."""
    _do_without_telemetry()
    for module in ("openvino", "transformers.modeling_utils", "modelport_torch.traced"):
        importlib.import_module(module)
    if generator_converter() == "optimum-intel":
        importlib.import_module("optimum.exporters.openvino")
        importlib.import_module("optimum.intel")
    import torch

    torch.export.export(torch.nn.Identity(), (torch.ones(1),), strict=False)  # what it needs it imports when it is used


def _do_without_telemetry() -> None:
    """It would call home."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]


def _convert_generator(job: Job, entry: Generate, checkpoint: Path, folder: Path) -> None:
    """A stateful decoder, which the continuous batching pipeline turns into paged attention. It is compared before its
    weights are compressed, which changes answers by intent."""
    import openvino as ov

    bits = _BITS.get(job.recipe["weights"])
    original = folder / "original" if bits else folder
    original.mkdir(exist_ok=True)
    if generator_converter() == "optimum-intel":
        _by_optimum(job, checkpoint, original)
    else:
        _by_transformers(job, checkpoint, original)
    gc.collect()
    compare_generator(original, checkpoint, job.dtype, head=entry.head, trust_remote_code=job.trust_remote_code)
    if bits:
        made = _compressed(ov.Core().read_model(original / "openvino_model.xml"), bits)
        _save(made, folder, halves=False)
        for name in ("config.json", "generation_config.json"):
            if (original / name).exists():
                (original / name).rename(folder / name)
        del made  # it reads the files that are removed now
        shutil.rmtree(original)


def _by_optimum(job: Job, checkpoint: Path, folder: Path) -> None:
    from optimum.exporters.openvino import main_export
    from optimum.intel import OVConfig

    main_export(
        str(checkpoint),
        output=folder,
        task="text-generation-with-past",
        library_name="transformers",
        local_files_only=True,
        trust_remote_code=job.trust_remote_code,
        ov_config=OVConfig(dtype="fp16" if job.dtype in _HALVES else "fp32"),
        convert_tokenizer=False,
    )


def _by_transformers(job: Job, checkpoint: Path, folder: Path) -> None:
    made, configurations = exported(checkpoint, trust_remote_code=job.trust_remote_code)
    _save(made, folder, halves=job.dtype in _HALVES)
    for configuration in configurations:
        configuration.save_pretrained(folder)


def _convert_forward(job: Job, name: str, entry: Forward | Module, checkpoint: Path, folder: Path) -> None:
    """One call with its reductions, by torch's own export: every axis that has a name stays free. A model that takes the number
    of items for constant is converted for one."""
    import torch

    from modelport_torch.traced import load, traced

    model, call = load(name, entry, checkpoint, trust_remote_code=job.trust_remote_code)
    module = traced(model, call, [spec.name for spec in entry.inputs])
    with torch.no_grad():
        try:
            made, most = _graph(module, entry, job.config)
        except (RuntimeError, ValueError):
            if not any("batch" in spec.axes for spec in entry.inputs):
                raise
            made, most = _graph(module, entry, job.config, batch=1)
    for port, spec in zip(made.inputs, entry.inputs, strict=True):
        port.get_tensor().set_names({spec.name})
    for port, output in zip(made.outputs, module.names, strict=True):
        port.get_tensor().set_names({output})
    if bits := _BITS.get(job.recipe["weights"]):
        made = _compressed(made, bits)
    _save(made, folder, halves=job.dtype in _HALVES)
    if most is not None:
        keep_most_tokens(folder, most)


def _graph(
    module: Traced, entry: Forward | Module, config: dict[str, Any], batch: int | None = None
) -> tuple[ov.Model, int | None]:
    """The module as a graph that answers as it does; of so many items always, if `batch` is given. And for how many tokens."""
    import openvino as ov
    import torch

    from modelport_torch.traced import examples

    inputs = tuple(examples(entry, config, batch=batch))
    free = [[isinstance(axis, str) and (axis != "batch" or batch is None) for axis in spec.axes] for spec in entry.inputs]
    dynamic = tuple({at: torch.export.Dim.DYNAMIC for at, is_free in enumerate(axes) if is_free} for axes in free)
    module(*inputs)  # says what is wrong with a program in plain words, and reads the files that reductions need
    exported = torch.export.export(module, inputs, dynamic_shapes=(dynamic,), strict=False)
    made: ov.Model = ov.convert_model(exported)
    for at, (axes, given) in enumerate(zip(free, inputs, strict=True)):  # it takes every axis for free
        made.reshape({at: [-1 if is_free else size for is_free, size in zip(axes, given.shape, strict=True)]})
    for padded in (True, False):
        _compare(made, module, examples(entry, config, again=True, padded=padded, batch=batch))
    return made, _most_tokens(exported, entry)


def _most_tokens(exported: ExportedProgram, entry: Forward | Module) -> int | None:
    """How long a sequence may be before the model would have gone another way than the one that was traced, if it asks that."""
    names = set(exported.graph_signature.user_inputs)
    given = [node.meta["val"] for node in exported.graph.nodes if node.name in names]
    sizes = [
        size
        for spec, value in zip(entry.inputs, given, strict=True)
        for axis, size in zip(spec.axes, value.shape, strict=True)
        if axis == "sequence" and not isinstance(size, int)
    ]
    ranges = [exported.range_constraints[size.node.expr] for size in sizes if size.node.expr in exported.range_constraints]
    return min((int(each.upper) for each in ranges if each.upper < _ENDLESS), default=None)


def _compare(made: ov.Model, module: Any, inputs: list[Any]) -> None:
    """Asks the graph and the model about the same inputs, of other sizes than those that it was made with.

    Raises:
        ValueError: if they do not agree: something that depends on the size was taken for constant.
    """
    import numpy as np
    import openvino as ov

    compiled = ov.compile_model(made, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    try:
        found = list(compiled([each.numpy() for each in inputs]).values())
    except RuntimeError as error:
        raise ValueError(f"the converted model takes inputs of one size only ({str(error).strip().splitlines()[-1]})") from error
    for output, got, wanted in zip(module.names, found, module(*inputs), strict=True):
        if tuple(got.shape) != tuple(wanted.shape) or (likeness := _cosine(np.asarray(got), wanted.numpy())) < _ALIKE:
            how = "has another shape" if tuple(got.shape) != tuple(wanted.shape) else f"cosine {likeness:.4f}"
            raise ValueError(f"the converted model answers otherwise than the original at other sizes (output {output!r}: {how})")


def _cosine(one: Any, other: Any) -> float:
    """Of two arrays, where both are finite; 1 if both are zero there."""
    import numpy as np

    held = np.isfinite(one) & np.isfinite(other)
    a, b = one[held].astype(np.float64), other[held].astype(np.float64)
    norms = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / norms if norms else float(not a.any() and not b.any())


def _save(model: ov.Model, folder: Path, *, halves: bool) -> None:
    import openvino as ov

    try:
        ov.save_model(model, folder / "openvino_model.xml", compress_to_fp16=halves)
    except RuntimeError as error:
        raise OSError(f"the converted model could not be written to {folder}; the disk may be full ({error})") from error


def _compressed(model: ov.Model, bits: int) -> ov.Model:
    import nncf

    mode = nncf.CompressWeightsMode.INT8_ASYM if bits == 8 else nncf.CompressWeightsMode.INT4_ASYM
    compressed: Any = nncf.compress_weights(model, mode=mode)
    return compressed


if __name__ == "__main__":
    answer(convert, "pip install 'modelport-backend-openvino[convert]' (with a newer transformers [compress])", preload)
