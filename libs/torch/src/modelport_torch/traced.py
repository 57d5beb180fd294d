"""A program's forward entry as one torch module over positional tensors: what an exporter can trace."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from modelport.contract.program import Forward, Module, TopK
from modelport_torch.forward import ForwardEntry
from modelport_torch.load import load_model, load_module

__all__ = ["Traced", "examples", "load", "traced"]

_HOST = torch.device("cpu")
_SIZES = {"batch": 3, "sequence": 7, "height": 96, "width": 160, "samples": 4000}
_SIZES_AGAIN = {"batch": 2, "sequence": 12, "height": 160, "width": 128, "samples": 5500}
_OTHER = (5, 11, 13, 17)


class Traced(torch.nn.Module):
    """Takes the inputs in the order of the entry's specs; returns the wanted outputs, named by `names`."""

    def __init__(self, model: torch.nn.Module, call: ForwardEntry, inputs: Sequence[str]) -> None:
        super().__init__()
        self.model = model
        self._call = call
        self._inputs = list(inputs)
        self.names = [name for output in call.spec.outputs for name in _names(output)]

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(self._call.tensors(dict(zip(self._inputs, tensors, strict=True))).values())


def load(name: str, entry: Forward | Module, checkpoint: Path, *, trust_remote_code: bool = False) -> tuple[Any, ForwardEntry]:
    """The model of an entry in float32, and its call.

    Raises:
        ConfigurationError: as the torch backends do for the same checkpoint.
    """
    if isinstance(entry, Module):
        model: Any = load_module(entry, checkpoint, None, _HOST)
    else:
        reads_pooler = entry.call != "forward" or any("pooler" in (out.source or out.name) for out in entry.outputs)
        unused = ("pooler",) if entry.head == "feature-extraction" and not reads_pooler else ()
        model = load_model(entry.head, checkpoint, "float32", _HOST, _silent, trust_remote_code=trust_remote_code, unused=unused)
        for config in (model.config, model.config.get_text_config()):
            config.use_cache = False  # nobody reads the caches of a single call, and heads hand on no such argument
    return model, ForwardEntry(name, entry, model, checkpoint, _HOST)


def traced(model: Any, call: ForwardEntry, inputs: Sequence[str]) -> Traced:
    """The module to export."""
    return Traced(model, call, inputs).eval()


def examples(
    entry: Forward | Module, config: dict[str, Any], *, again: bool = False, padded: bool = True, batch: int | None = None
) -> list[torch.Tensor]:
    """An input of each spec. Axes of one name are equally long, and no two names are, so that nothing is taken for constant.

    `again`: others, of other sizes and partly masked unless not `padded`, to see whether a graph that was made with the first
    holds for them. Some models go another way where nothing is masked.
    `batch`: so many items.
    """
    sizes = dict(_SIZES_AGAIN if again else _SIZES)
    sizes["batch"] = batch or sizes["batch"]
    size = int(config.get("vocab_size") or 16)
    made = []
    for spec in entry.inputs:
        shape = entry.examples.get(spec.name) if isinstance(entry, Module) else None
        if shape is None:
            for axis in spec.axes:
                if isinstance(axis, str) and axis not in sizes:
                    sizes[axis] = _OTHER[(len(sizes) - len(_SIZES)) % len(_OTHER)]
            shape = tuple(axis if isinstance(axis, int) else sizes[axis] for axis in spec.axes)
        dtype = getattr(torch, spec.dtype)
        if dtype.is_floating_point:
            made.append(torch.randn(shape, dtype=dtype))
        elif "mask" in spec.name:
            made.append(torch.ones(shape, dtype=dtype))
            if again and padded and len(shape) > 1:
                made[-1][0, shape[1] // 2 :] = 0  # padding, as that of the shorter of two texts, or the lower of two images
        else:
            high = min(size, 16) if spec.name == "input_ids" else 1
            made.append(torch.randint(0, max(high, 1), shape).to(dtype))
    return made


def _names(output: Any) -> list[str]:
    return [output.name, f"{output.name}_indices"] if any(isinstance(step, TopK) for step in output.chain) else [output.name]


def _silent(what: str, fraction: float) -> None: ...
