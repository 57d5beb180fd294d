"""The reductions of `modelport.contract.reduce` in torch, on the device, equal to the NumPy reference."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch.nn import functional

from modelport.contract.errors import ConfigurationError
from modelport.contract.program import (
    Argmax,
    At,
    Cast,
    Dense,
    LogSoftmax,
    Normalize,
    Pool,
    Sigmoid,
    Softmax,
    Splade,
    Step,
    TopK,
    step_name,
)
from modelport_torch.dtype import has_float64, torch_dtype

__all__ = ["REDUCTIONS", "DenseFiles", "reduce"]

REDUCTIONS = frozenset(
    step_name(step)
    for step in (
        Pool("mean"), Dense(""), Normalize(), Softmax(), Sigmoid(), LogSoftmax(), Argmax(), TopK(1), At(""), Splade(), Cast(""),
    )
)  # fmt: skip
"""Names of all steps that `reduce` applies: every one of the contract's list."""

_STABLE_ELEMENTS = 1 << 22
_ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "identity": lambda x: x,
    "tanh": torch.tanh,
    "relu": torch.relu,
    "gelu": functional.gelu,
}


class DenseFiles:
    """Weights of `Dense` steps, read from safetensors files of one checkpoint, each once."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        self._folder = folder
        self._device = device
        self._read: dict[str, tuple[torch.Tensor, torch.Tensor | None]] = {}

    def __call__(self, file: str) -> tuple[torch.Tensor, torch.Tensor | None]:
        """(weight (out, in), bias (out) or None), in float32.

        Raises:
            ConfigurationError: if the file is missing, lies outside the checkpoint or has no `linear.weight`.
        """
        if file not in self._read:
            from safetensors.torch import load_file

            path = (self._folder / file).resolve()
            if not path.is_relative_to(self._folder.resolve()):
                raise ConfigurationError(f"the dense step names {file!r}, which lies outside the checkpoint {self._folder}.")
            if not path.is_file():
                raise ConfigurationError(f"the dense step needs {file!r}, and the checkpoint {self._folder} does not have it.")
            tensors = load_file(path)
            if "linear.weight" not in tensors:
                has = ", ".join(sorted(tensors)) or "none"
                raise ConfigurationError(f"{path} has no tensor 'linear.weight', which a dense step needs; it has: {has}.")
            bias = tensors.get("linear.bias")
            self._read[file] = (
                tensors["linear.weight"].to(self._device, torch.float32),
                None if bias is None else bias.to(self._device, torch.float32),
            )
        return self._read[file]


def reduce(step: Step, value: torch.Tensor, inputs: Mapping[str, torch.Tensor], dense: DenseFiles) -> tuple[torch.Tensor, ...]:
    """One reduction of `value`: a tuple of one tensor, or of two (values, indices) for `TopK`.

    Half types are widened first, so that a chain is computed in float32 whatever the model ran in.

    Raises:
        KeyError: if the step names an input that the batch lacks.
    """
    if isinstance(step, Cast):
        wanted = torch_dtype(step.dtype)
        if wanted == torch.float64 and not has_float64(value.device):
            value = value.cpu()
        return (value.to(wanted),)
    if value.dtype in (torch.bfloat16, torch.float16):
        value = value.float()
    match step:
        case Pool(mode, mask):
            return (_pool(value, mode, inputs[mask] != 0),)
        case Dense(file, activation):
            weight, bias = dense(file)
            return (_ACTIVATIONS[activation](functional.linear(value, weight, bias)),)
        case Normalize():
            return (functional.normalize(value, dim=-1, eps=1e-12),)
        case Softmax():
            return (value.softmax(-1),)
        case LogSoftmax():
            return (value.log_softmax(-1),)
        case Sigmoid():
            return (value.sigmoid(),)
        case Argmax():
            return (value.argmax(-1),)
        case TopK(k):
            return _topk(value, k)
        case At(index):
            rows = inputs[index].long()
            return (value[torch.arange(value.shape[0], device=value.device)[:, None], rows],)
        case Splade():
            return (_splade(step, value.masked_fill((inputs[step.mask] == 0)[..., None], 0.0)),)
    raise TypeError(f"unknown reduction {type(step).__name__}")


def _splade(step: Splade, value: torch.Tensor) -> torch.Tensor:
    # log(1 + relu(x)) never falls as x grows, so a maximum can be taken first: one pass, no second copy of the logits.
    weights = (value.amax(1) if step.mode == "max" else value).relu().log1p()
    weights = weights.log1p() if step.activation == "log1p_relu" else weights
    return weights if step.mode == "max" else weights.sum(1)


def _pool(value: torch.Tensor, mode: str, real: torch.Tensor) -> torch.Tensor:
    if mode == "mean":
        weights = real.to(value.dtype)
        total = torch.bmm(weights[:, None], value)[:, 0] if value.dim() == 3 else (value * weights[..., None]).sum(1)
        return total / weights.sum(1, keepdim=True).clamp(min=1)
    if mode == "max":
        return value.masked_fill(~real[..., None], torch.finfo(value.dtype).min).amax(1)
    first = (real if mode == "cls" else real.flip(1)).int().argmax(1)
    position = first if mode == "cls" else real.shape[1] - 1 - first
    return value[torch.arange(value.shape[0], device=value.device), position]


def _topk(value: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    k = min(k, value.shape[-1])
    # Ties among more elements than this are not worth a full sort; an exported graph has no such number.
    if not torch.compiler.is_exporting() and value.numel() > _STABLE_ELEMENTS:
        values, indices = value.topk(k, -1)
        return values, indices
    values, indices = value.sort(dim=-1, descending=True, stable=True)
    return values[..., :k].contiguous(), indices[..., :k].contiguous()
