"""Whether a faster type gives the same answers: a short comparison when a model is loaded with `dtype = "fast"`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
import torch

from modelport.contract.array import to_numpy
from modelport.contract.program import Forward, Generate, Module, Program
from modelport_torch.forward import ForwardEntry

__all__ = ["Answers", "Probe", "agree"]

_COSINE = 0.999
_TEXT = 16


class Answers(msgspec.Struct):
    """What the models said: outputs of forwards, greedy tokens of generations, and the texts those were read along."""

    outputs: dict[str, np.ndarray] = {}
    tokens: dict[str, list[int]] = {}
    texts: dict[str, list[int]] = {}


class Probe:
    """Made-up inputs for every entry of a program, the same each time."""

    def __init__(self, program: Program, forwards: Mapping[str, ForwardEntry], models: Mapping[str, Any]) -> None:
        self._program = program
        self._forwards = forwards
        self._models = models

    @torch.inference_mode()
    def run(self, texts: Mapping[str, list[int]] | None = None, *, briefly: bool = False) -> Answers | None:
        """The answers, or None if there is an entry whose inputs cannot be made up.

        Args:
            texts: What a first run generated: given, the tokens that *follow each of its prefixes* are compared, which is equal
                to generating, and one forward.
            briefly: Compare the logits of some tokens instead of generating; cheaper, for changes that leave the type alone.
        """
        answers = Answers()
        for name, entry in self._program.entries.items():
            if isinstance(entry, Generate) and briefly:
                model = self._models[name]
                ids = torch.arange(1, _TEXT + 1, device=model.device)[None] % model.config.get_text_config().vocab_size
                answers.outputs[name] = model(input_ids=ids, use_cache=False).logits.float().cpu().numpy()
                continue
            if isinstance(entry, Generate):
                text = (texts or {}).get(name) or self._write(self._models[name])
                ids = torch.tensor([text], device=self._models[name].device)
                answers.texts[name] = text
                answers.tokens[name] = (
                    self._models[name](input_ids=ids, use_cache=False).logits[0].argmax(-1).tolist()[-_TEXT - 1 : -1]
                )
                continue
            batch = self._inputs(entry, self._models[name])
            if batch is None:
                return None
            for output, value in self._forwards[name](batch).items():
                if (array := to_numpy(value)).dtype.kind == "f":
                    answers.outputs[f"{name}.{output}"] = array
        return answers

    def _inputs(self, entry: Forward | Module, model: Any) -> dict[str, np.ndarray] | None:
        draw = np.random.default_rng(0)
        size = getattr(getattr(model, "config", None), "vocab_size", None)
        batch: dict[str, np.ndarray] = {}
        for spec in entry.inputs:
            named = {"batch": 2, "sequence": 16}
            shape = entry.examples.get(spec.name) if isinstance(entry, Module) else None
            if shape is None:
                if any(isinstance(axis, str) and axis not in named for axis in spec.axes):
                    return None
                shape = tuple(axis if isinstance(axis, int) else named[axis] for axis in spec.axes)
            if np.dtype(spec.dtype).kind == "f":
                batch[spec.name] = draw.standard_normal(shape).astype(spec.dtype)
            elif "mask" in spec.name:
                batch[spec.name] = np.ones(shape, spec.dtype)
            elif spec.name == "input_ids" and size is None:
                return None
            else:
                high = size if spec.name == "input_ids" and size else 1
                batch[spec.name] = draw.integers(0, high, shape).astype(spec.dtype)
        return batch

    def _write(self, model: Any) -> list[int]:
        """A text that the model itself finds likely: where types differ on that, users would notice."""
        start = getattr(model.generation_config, "bos_token_id", None)
        text = [int(start) if isinstance(start, int) else 1]
        for _ in range(_TEXT):
            ids = torch.tensor([text], device=model.device)
            text.append(int(model(input_ids=ids, use_cache=False).logits[0, -1].argmax()))
        return text


def agree(before: Answers, after: Answers | None) -> tuple[bool, str]:
    """Whether two runs agree, and the finding in words."""
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
