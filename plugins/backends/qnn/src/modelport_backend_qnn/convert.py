"""The converter: the one place where this backend meets torch. Run as `python -m modelport_backend_qnn.convert`."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnxruntime
import torch

from modelport.contract.errors import ConfigurationError
from modelport.contract.program import Forward
from modelport_backend_qnn import calibration, provider
from modelport_backend_qnn.agreement import Tally
from modelport_backend_qnn.bias import FLOAT_HIDDEN, MASK, QUANTISED_HIDDEN, bias_of
from modelport_backend_qnn.feed import fed
from modelport_backend_qnn.precision import Precision
from modelport_backend_qnn.quantise import quantise
from modelport_backend_qnn.shapes import sized
from modelport_convert.child import Tell, answer
from modelport_convert.job import Job
from modelport_torch.forward import ForwardEntry
from modelport_torch.traced import load, traced

__all__ = ["convert"]

_AGREES = 1e-3
_FLOATS = ("float32", "float64", "float16")
_EVERY = 4
"""One batch of so many is kept aside for the comparison."""
_GOOD = 0.999
"""The worst cosine at which nothing else is tried."""
_COMPARED = 16
"""Most batches that are compared for each shape; an emulated NPU takes seconds for one."""


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

    If the recipe names `precision`, the model is quantised in between, with the examples in the file `examples`, and its answers
    to some of them are compared with the original's: `agreement.json`.

    Raises:
        ConfigurationError: the model cannot be loaded, cannot be given a bias for a mask, QNN cannot place all of it, or the
            examples do not fit.
    """
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    precision = msgspec.convert(job.recipe.get("precision", {}), Precision)
    provider_options, tally = job.recipe["provider"], Tally()
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
        examples = _examples(job, name, inputs) if precision.is_quantised else {}
        for shape in shapes:
            tell(f"compiling {name} for {shape[0]} × {shape[1]}", 0.1 + 0.8 * done / total)
            plain, kept = folder / "plain.onnx", folder / f"{shape[0]}x{shape[1]}.onnx"
            _export(traced(model, call, inputs), entry, inputs, shape, plain)
            if precision.is_quantised:
                _quantise(plain, entry, calibration.batches(entry, examples, shape), precision, kept, provider_options, tally)
            else:
                _compile(plain, entry, kept, provider_options)
            for path in (*folder.glob("plain.onnx*"), *folder.glob("quantised.onnx*")):
                path.unlink()
            done += 1
    if precision.is_quantised:
        tally.agreement().write(Path(job.out))
    tell("converted", 0.95)


def _examples(job: Job, entry: str, inputs: Sequence[str]) -> calibration.Examples:
    """The examples that the recipe means, and no others that have been written to the same file since."""
    path, size = Path(job.recipe["examples"]), job.config.get("vocab_size")
    if calibration.digest_of(path) != job.recipe["calibration"]:
        raise ConfigurationError(f"the calibration file {path} was changed meanwhile; load the model again.")
    return calibration.read(path, job.program, entry, inputs, size if isinstance(size, int) else None)


def _export(module: Any, entry: Forward, inputs: Sequence[str], shape: Any, plain: Path) -> None:
    examples = [_example(spec, sized(spec, shape)) for spec in entry.inputs if spec.name in inputs]
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


def _compile(model: Path, entry: Forward, kept: Path, options: dict[str, str]) -> Any:
    """Writes what QNN makes of `model` to `kept`; the session over it."""
    try:
        return provider.session(model, options, keep_as=kept)
    except Exception as error:  # onnxruntime's own kinds share no other base
        why = " ".join(str(error).split())
        raise ConfigurationError(
            f"not all of entry {entry.head!r} runs on the NPU, and nothing falls back in silence: {why[:400]}"
        ) from error


def _quantise(
    plain: Path,
    entry: Forward,
    examples: Iterator[tuple[calibration.Examples, np.ndarray]],
    precision: Precision,
    kept: Path,
    options: dict[str, str],
    tally: Tally,
) -> None:
    """Quantises `plain`, compiles it, and tallies its answers to a part of the examples beside the original's.

    Where there are enough, these are none of those that it is calibrated with: ranges that fit only them would not show.
    Ranges for each channel of 8-bit weights are tried first, and one for all of them if that answers badly: most models gain
    by the former, and QNN computes some wrongly with it.
    """
    batches = list(examples)
    aside = batches[_EVERY - 1 :: _EVERY]
    seen = [batch for index, batch in enumerate(batches) if index % _EVERY != _EVERY - 1]
    if not batches:
        raise ConfigurationError(f"no calibration example for {kept.stem} tokens has any that is not hidden.")
    original = onnxruntime.InferenceSession(str(plain), providers=["CPUExecutionProvider"])
    feeds = [fed(original.get_inputs(), batch, QUANTISED_HIDDEN) for batch, _ in seen]
    whole, draft, best, refusal = plain.with_name("quantised.onnx"), kept.with_suffix(".draft"), Tally(), None
    for by_channel in (True, False) if precision.weights == "int8" else (False,):
        found = Tally()
        quantise(plain, whole, feeds, precision, by_channel=by_channel)
        try:
            _compare(original, _compile(whole, entry, draft, options), aside or seen, found)
        except ConfigurationError as error:
            refusal = error
            continue
        if found.worst > best.worst:
            best = found
            draft.replace(kept)
        draft.unlink(missing_ok=True)
        if best.worst >= _GOOD:
            break
    if refusal is not None and not kept.exists():
        raise refusal
    tally.join(best)


def _compare(original: Any, quantised: Any, batches: Sequence[tuple[calibration.Examples, np.ndarray]], tally: Tally) -> None:
    """Compares answers to some of the examples, spread over all of them."""
    ports, names = original.get_inputs(), [port.name for port in original.get_outputs()]
    for index in np.unique(np.linspace(0, len(batches) - 1, _COMPARED).round().astype(int)):
        batch, real = batches[index]
        expected = original.run(names, fed(ports, batch, FLOAT_HIDDEN))
        found = quantised.run(names, fed(ports, batch, QUANTISED_HIDDEN))
        for row in np.flatnonzero(real):
            mask = batch[MASK][row] if MASK in batch else None
            for one, other in zip(expected, found, strict=True):
                tally.add(one[row], other[row], mask)


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
