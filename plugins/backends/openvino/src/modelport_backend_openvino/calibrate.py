"""What a compiled program answers to made-up inputs: compared when a faster type is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from modelport.contract.array import to_numpy
from modelport.contract.generate import GenerateRequest, Sampling
from modelport.contract.program import Generate, Program
from modelport_backend_openvino.engine import OpenVinoEngine
from modelport_backend_openvino.forward import CompiledForward
from modelport_torch.agreement import TEXT, Answers, made_up_inputs
from modelport_torch.support import text_config

__all__ = ["answers"]


def answers(
    program: Program,
    config: Mapping[str, Any],
    forwards: Mapping[str, CompiledForward],
    engines: Mapping[str, OpenVinoEngine],
    before: Answers | None = None,
) -> Answers | None:
    """The answers, or None if there is an entry whose inputs cannot be made up.

    What an entry generated in an earlier run is not generated again: the tokens that follow each of its prefixes are compared,
    which is the same where both agree, and tells where they do not.
    """
    found = Answers()
    for name, entry in program.entries.items():
        if isinstance(entry, Generate):
            start = config.get("bos_token_id")
            text = before.texts[name] if before else [start if isinstance(start, int) else 1]
            if not before:
                text += _generated(engines[name], [text], TEXT)[0]
            found.texts[name] = text
            found.tokens[name] = [said[0] for said in _generated(engines[name], [text[:end] for end in range(1, len(text))], 1)]
            continue
        batch = made_up_inputs(entry, text_config(config).get("vocab_size"))
        if batch is None:
            return None
        for output, value in forwards[name].submit(batch).result().items():
            if (array := to_numpy(value)).dtype.kind == "f":
                found.outputs[f"{name}.{output}"] = array
    return found


def _generated(engine: OpenVinoEngine, prompts: list[list[int]], tokens: int) -> list[list[int]]:
    """What follows each prompt, greedily."""
    said: list[list[int]] = [[] for _ in prompts]
    params = Sampling(max_new_tokens=tokens, do_sample=False, ignore_eos=True)
    for index, prompt in enumerate(prompts):
        engine.add(GenerateRequest(id=index, inputs={"input_ids": np.array(prompt, np.int64)}, params=params))
    while engine.load().running:
        for event in engine.step():
            said[event.id] += event.tokens
    return said
