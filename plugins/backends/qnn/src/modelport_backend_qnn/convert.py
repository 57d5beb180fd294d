"""The converter: the one place where this backend meets torch. Run as `python -m modelport_backend_qnn.convert`."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from modelport.contract.errors import ConfigurationError
from modelport.contract.program import Forward
from modelport_backend_qnn import provider
from modelport_backend_qnn.bias import MASK, bias_of
from modelport_backend_qnn.shapes import sized
from modelport_convert.child import Tell, answer
from modelport_convert.job import Job
from modelport_torch.forward import ForwardEntry
from modelport_torch.traced import load, traced

__all__ = ["convert"]

_AGREES = 1e-3
_FLOATS = ("float32", "float64", "float16")


class _Biased(torch.nn.Module):
    """A traced entry whose attention mask arrives as what is added to attention's scores, (batch, sequence) float32.
    The NPU lacks the operations that would make this of an integer mask."""

    def __init__(self, inner: torch.nn.Module, inputs: Sequence[str]) -> None:
        super().__init__()
        self.inner = inner
        self._mask = list(inputs).index(MASK) if MASK in inputs else None

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        given = list(tensors)
        if self._mask is not None:
            given[self._mask] = given[self._mask][:, None, None, :]
        outputs: tuple[torch.Tensor, ...] = self.inner(*given)
        return outputs


def convert(job: Job, tell: Tell) -> None:
    """Exports every entry, which has no reductions, in every shape to ONNX and has QNN compile it, in this process.

    Raises:
        ConfigurationError: the model cannot be loaded, cannot be given a bias for a mask, or QNN cannot place all of it.
    """
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    shapes = [tuple(shape) for shape in job.recipe["shapes"]]
    done, total = 0, len(job.program.entries) * len(shapes)
    for name, entry in job.program.entries.items():
        assert isinstance(entry, Forward)
        tell(f"converting {name}", 0.1 + 0.8 * done / total)
        folder = Path(job.out) / name
        folder.mkdir()
        model, call = load(name, entry, Path(job.checkpoints[entry.checkpoint]), trust_remote_code=job.trust_remote_code)
        inputs = [spec.name for spec in entry.inputs if call.takes(spec.name)]
        _check_bias(model, call, entry, inputs, job.config)
        for shape in shapes:
            tell(f"compiling {name} for {shape[0]} × {shape[1]}", 0.1 + 0.8 * done / total)
            _compile(traced(model, call, inputs), entry, inputs, shape, folder, job.recipe["provider"])
            done += 1
    tell("converted", 0.95)


def _compile(module: Any, entry: Forward, inputs: Sequence[str], shape: Any, folder: Path, options: dict[str, str]) -> None:
    examples = [_example(spec, sized(spec, shape)) for spec in entry.inputs if spec.name in inputs]
    plain, kept = folder / "plain.onnx", folder / f"{shape[0]}x{shape[1]}.onnx"
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            _Biased(module, inputs).eval(),
            tuple(examples),
            str(plain),
            input_names=list(inputs),
            output_names=module.names,
            dynamo=True,
            verbose=False,
        )
    try:
        provider.session(plain, options, keep_as=kept)
    except Exception as error:  # onnxruntime's own kinds share no other base
        why = " ".join(str(error).split())
        raise ConfigurationError(
            f"not all of entry {entry.head!r} runs on the NPU, and nothing falls back in silence: {why[:400]}"
        ) from error
    for path in folder.glob("plain.onnx*"):
        path.unlink()


def _check_bias(model: Any, call: ForwardEntry, entry: Forward, inputs: Sequence[str], config: dict[str, Any]) -> None:
    """Compares a masked row with its mask as integers and as a bias: models that use it otherwise are refused."""
    if MASK not in inputs:
        return
    shape = (1, 8)
    tensors = [_example(spec, sized(spec, shape)) for spec in entry.inputs if spec.name in inputs]
    mask = np.ones(shape, np.int64)
    mask[0, 5:] = 0
    at = list(inputs).index(MASK)
    plain, biased = list(tensors), list(tensors)
    plain[at], biased[at] = torch.from_numpy(mask), torch.from_numpy(bias_of(mask))
    module = traced(model, call, inputs)
    try:
        with torch.no_grad():
            expected, found = module(*plain), _Biased(module, inputs)(*biased)
    except Exception as error:
        raise ConfigurationError(f"the model does not take its attention mask as a bias: {error}") from error
    for one, other in zip(expected, found, strict=True):
        real = (slice(None), slice(0, 5)) if one.ndim > 2 and one.shape[1] == shape[1] else (slice(None),)
        if not torch.allclose(one[real], other[real], atol=_AGREES, rtol=_AGREES):
            raise ConfigurationError(
                "the model uses its attention mask for more than a bias of attention's scores, which is how the NPU gets it;"
                " use another backend."
            )


def _example(spec: Any, size: tuple[int, ...]) -> torch.Tensor:
    if spec.name == MASK:
        return torch.zeros(size, dtype=torch.float32)
    if spec.dtype in _FLOATS:
        return torch.randn(size, dtype=torch.float32)
    return torch.ones(size, dtype=torch.int32)


if __name__ == "__main__":
    answer(convert, "pip install modelport-backend-qnn")
