"""Whether a faster type gives the same answers: a short comparison when a model is loaded with `dtype = "fast"`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from modelport.contract.array import to_numpy
from modelport.contract.program import Forward, Generate, Module, Program
from modelport_torch.agreement import TEXT, Answers, made_up_inputs
from modelport_torch.forward import ForwardEntry

__all__ = ["Probe"]


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
            if isinstance(entry, Generate) and not _takes_text_alone(self._models[name]):
                return None
            if isinstance(entry, Generate) and briefly:
                model = self._models[name]
                ids = torch.arange(1, TEXT + 1, device=model.device)[None] % model.config.get_text_config().vocab_size
                answers.outputs[name] = model(input_ids=ids, use_cache=False).logits.float().cpu().numpy()
                continue
            if isinstance(entry, Generate):
                text = (texts or {}).get(name) or self._write(self._models[name])
                ids = torch.tensor([text], device=self._models[name].device)
                answers.texts[name] = text
                answers.tokens[name] = (
                    self._models[name](input_ids=ids, use_cache=False).logits[0].argmax(-1).tolist()[-TEXT - 1 : -1]
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
        return made_up_inputs(entry, getattr(getattr(model, "config", None), "vocab_size", None))

    def _write(self, model: Any) -> list[int]:
        """A text that the model itself finds likely: where types differ on that, users would notice."""
        start = getattr(model.generation_config, "bos_token_id", None)
        text = [int(start) if isinstance(start, int) else 1]
        for _ in range(TEXT):
            ids = torch.tensor([text], device=model.device)
            text.append(int(model(input_ids=ids, use_cache=False).logits[0, -1].argmax()))
        return text


def _takes_text_alone(model: Any) -> bool:
    return model.main_input_name == "input_ids" and not model.config.is_encoder_decoder
