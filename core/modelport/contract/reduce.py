"""The NumPy reference of every reduction, and the rule that divides a chain between backend and core.

A backend applies the longest prefix of a chain whose steps it lists in `Limits.reductions`; the core applies the rest
with the functions below after the run. The backend suite compares the two.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from modelport.contract.array import Array, to_numpy
from modelport.contract.program import (
    Argmax,
    At,
    Cast,
    Dense,
    LogSoftmax,
    Normalize,
    Output,
    Pool,
    Sigmoid,
    Softmax,
    Splade,
    Step,
    TopK,
    step_name,
)

__all__ = ["DenseWeights", "apply", "dense_reader", "finish", "split_chain"]

DenseWeights = Callable[[str], tuple[np.ndarray, np.ndarray | None]]
"""Reads (weight (out, in), bias (out) or None) of a `Dense` file, relative to the checkpoint."""


def split_chain(chain: tuple[Step, ...], supported: frozenset[str]) -> tuple[tuple[Step, ...], tuple[Step, ...]]:
    """(what the backend does, what the core does) of `chain`.

    >>> split_chain((Pool("mean"), Normalize()), frozenset({"pool"}))
    ((Pool(mode='mean', mask='attention_mask'),), (Normalize(),))
    """
    for index, step in enumerate(chain):
        if step_name(step) not in supported:
            return chain[:index], chain[index:]
    return chain, ()


def apply(
    step: Step, value: np.ndarray, inputs: Mapping[str, Array], dense: DenseWeights | None = None
) -> tuple[np.ndarray, ...]:
    """One reduction of `value`: a tuple of one array, or of two (values, indices) for `TopK`.

    Raises:
        KeyError: if the step names an input that the batch lacks.
    """
    match step:
        case Pool(mode, mask):
            return (_pool(value, mode, to_numpy(inputs[mask])),)
        case Dense(file, activation):
            if dense is None:
                raise ValueError(f"a dense step needs the checkpoint's file {file!r}, and no reader was given")
            weight, bias = dense(file)
            out = value @ weight.T.astype(value.dtype)
            return (_ACTIVATIONS[activation](out if bias is None else out + bias.astype(value.dtype)),)
        case Normalize():
            return (value / np.maximum(np.linalg.norm(value, axis=-1, keepdims=True), 1e-12),)
        case Softmax():
            e = np.exp(value - value.max(axis=-1, keepdims=True))
            return (e / e.sum(axis=-1, keepdims=True),)
        case LogSoftmax():
            shifted = value - value.max(axis=-1, keepdims=True)
            return (shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)),)
        case Sigmoid():
            return (_sigmoid(value),)
        case Argmax():
            return (value.argmax(axis=-1).astype(np.int64),)
        case TopK(k):
            order = np.argsort(-value, axis=-1, kind="stable")[..., :k]
            return np.take_along_axis(value, order, axis=-1), order.astype(np.int64)
        case At(index):
            rows = to_numpy(inputs[index]).astype(np.int64)
            return (value[np.arange(len(value))[:, None], rows],)
        case Splade(mask, mode, activation):
            weights = np.log1p(np.maximum(value, 0))
            weights = np.log1p(weights) if activation == "log1p_relu" else weights
            weights = weights * (to_numpy(inputs[mask]) != 0)[..., None]
            return (weights.max(axis=1) if mode == "max" else weights.sum(axis=1),)
        case Cast(dtype):
            return (value.astype(np.dtype(dtype)),)


def finish(
    outputs: tuple[Output, ...],
    raw: Mapping[str, Array],
    inputs: Mapping[str, Array],
    supported: frozenset[str],
    dense: DenseWeights | None = None,
) -> dict[str, Array]:
    """What a runner returned, with the steps it left to the core applied. Kept outputs pass through untouched."""
    done: dict[str, Array] = dict(raw)
    for output in outputs:
        rest = split_chain(output.chain, supported)[1]
        if not rest:
            continue
        value = to_numpy(raw[output.name])
        for step in rest:
            value, *more = apply(step, value, inputs, dense)
            if more:
                done[f"{output.name}_indices"] = more[0]
        done[output.name] = value
    return done


def _pool(value: np.ndarray, mode: str, mask: np.ndarray) -> np.ndarray:
    real = mask != 0
    if mode == "mean":
        weights = real.astype(value.dtype)[..., None]
        return np.asarray((value * weights).sum(axis=1) / np.maximum(weights.sum(axis=1), 1))
    if mode == "max":
        return np.asarray(np.where(real[..., None], value, np.finfo(value.dtype).min).max(axis=1))
    width = real.shape[1]
    position = real.argmax(axis=1) if mode == "cls" else width - 1 - real[:, ::-1].argmax(axis=1)
    return np.asarray(value[np.arange(len(value)), position])


def _sigmoid(x: np.ndarray) -> np.ndarray:
    e = np.exp(-np.abs(x))
    return np.asarray(np.where(x >= 0, 1 / (1 + e), e / (1 + e)))


def _gelu(x: np.ndarray) -> np.ndarray:
    erf = np.vectorize(math.erf, otypes=[x.dtype])
    return np.asarray(0.5 * x * (1 + erf(x / math.sqrt(2))))


_ACTIVATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "identity": lambda x: x,
    "tanh": np.tanh,
    "relu": lambda x: np.maximum(x, 0),
    "gelu": _gelu,
}


def dense_reader(folder: Path) -> DenseWeights:
    """Reads `Dense` files of the checkpoint in `folder`, each once.

    Raises:
        ValueError: if a file lacks `linear.weight`.
    """
    from safetensors.numpy import load_file

    cache: dict[str, tuple[np.ndarray, np.ndarray | None]] = {}

    def read(file: str) -> tuple[np.ndarray, np.ndarray | None]:
        if file not in cache:
            tensors = load_file(folder / file)
            if "linear.weight" not in tensors:
                raise ValueError(f"{file} has no tensor 'linear.weight'; it has {', '.join(sorted(tensors)) or 'none'}")
            cache[file] = tensors["linear.weight"], tensors.get("linear.bias")
        return cache[file]

    return read
