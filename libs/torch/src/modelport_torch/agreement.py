"""Whether two ways to compute a model give the same answers to made-up inputs. Without torch: any runtime's answers compare."""

from __future__ import annotations

import msgspec
import numpy as np

from modelport.contract.program import Forward, Module

__all__ = ["TEXT", "Answers", "agree", "made_up_inputs"]

TEXT = 16
"""How many tokens are compared for each entry that generates."""

_COSINE = 0.999


class Answers(msgspec.Struct):
    """What the models said: outputs of forwards, greedy tokens of generations, and the texts those were read along."""

    outputs: dict[str, np.ndarray] = {}
    tokens: dict[str, list[int]] = {}
    texts: dict[str, list[int]] = {}


def made_up_inputs(
    entry: Forward | Module, vocabulary: int | None, size: tuple[int, int] | None = None
) -> dict[str, np.ndarray] | None:
    """A batch for an entry, the same each time; None if its inputs cannot be made up.

    Args:
        size: (rows, tokens of the longest); every second row is shorter then. By default two of one length.
    """
    draw = np.random.default_rng(0)
    batch: dict[str, np.ndarray] = {}
    for spec in entry.inputs:
        named = dict(zip(("batch", "sequence"), size or (2, 16), strict=True))
        example = entry.examples.get(spec.name) if isinstance(entry, Module) else None
        if example is not None and size is not None:
            shape = tuple(named.get(str(axis), known) for axis, known in zip(spec.axes, example, strict=True))
        elif example is not None:
            shape = example
        else:
            if any(isinstance(axis, str) and axis not in named for axis in spec.axes):
                return None
            shape = tuple(axis if isinstance(axis, int) else named[axis] for axis in spec.axes)
        if np.dtype(spec.dtype).kind == "f":
            batch[spec.name] = draw.standard_normal(shape).astype(spec.dtype)
        elif "mask" in spec.name:
            batch[spec.name] = np.ones(shape, spec.dtype)
            if size is not None and spec.axes == ("batch", "sequence"):
                batch[spec.name][1::2, shape[1] // 2 :] = 0
        elif spec.name == "input_ids" and vocabulary is None:
            return None
        else:
            high = vocabulary if spec.name == "input_ids" and vocabulary else 1
            batch[spec.name] = draw.integers(0, high, shape).astype(spec.dtype)
    return batch


def agree(before: Answers, after: Answers | None) -> tuple[bool, str]:
    """Whether two runs agree (cosine of outputs at least 0.999, greedy tokens equal), and the finding in words."""
    assert after is not None
    worst = 1.0
    for name, reference in before.outputs.items():
        a, b = reference.reshape(len(reference), -1).astype(np.float64), after.outputs[name].reshape(len(reference), -1)
        norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
        worst = min(worst, float(((a * b).sum(1) / np.maximum(norms, 1e-12)).min()))
    same = sum(x == y for name, tokens in before.tokens.items() for x, y in zip(tokens, after.tokens[name], strict=True))
    total = sum(map(len, before.tokens.values()))
    findings = ([f"cosine {worst:.5f}"] if before.outputs else []) + ([f"{same} of {total} greedy tokens equal"] if total else [])
    return worst >= _COSINE and same == total, ", ".join(findings) or "nothing to compare"
