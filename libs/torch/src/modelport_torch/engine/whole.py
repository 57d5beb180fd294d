"""Prompts of more than text: taken in by the model's own `generate`, and then stepped like any other.

Where pixels go among the tokens, which of these see each other and where they stand is the model's own affair. What comes after
the prompt is text, and all that the stepped engine needs of the rest are keys and values. Whether that is so of a model is tried.
"""

from __future__ import annotations

import copy
from typing import Any

import msgspec
import numpy as np
import torch
from transformers import DynamicCache

from modelport.contract.generate import GenerateRequest
from modelport_torch.array import to_tensor

__all__ = ["NO_TOKEN", "Taken", "take_whole", "whole_inputs"]

NO_TOKEN = (1 << 31) - 1
"""What no model says."""


class Taken(msgspec.Struct, frozen=True):
    """A prompt that a model has read.

    Args:
        logits: Of the token after it, and of further ones if they were asked for: (tokens, vocabulary).
        tokens: The likeliest, of each of them.
        states: Keys of each layer, then values: (length, heads, width).
        offset: What the model adds to a later token's place for its position: images may take more places than positions.
    """

    logits: torch.Tensor
    tokens: list[int]
    states: list[torch.Tensor]
    offset: int = 0


def whole_inputs(request: GenerateRequest, model: Any, device: torch.device) -> dict[str, torch.Tensor]:
    """The arrays of a request that shares no batch, with a batch axis, for `generate`."""
    found = {}
    for name, array in request.inputs.items():
        value = to_tensor(array if name in request.whole else np.asarray(array)[None], device)
        found[name] = value.to(model.dtype) if value.is_floating_point() else value
    if "input_ids" in found:
        found.setdefault("attention_mask", torch.ones_like(found["input_ids"]))
    return found


def take_whole(model: Any, device: torch.device, request: GenerateRequest, count: int = 1) -> Taken:
    """What a model makes of the prompt of `request`, and the logits of the next `count` tokens, the likeliest each time.

    Raises:
        ValueError: if it does not keep keys and values of every token of the prompt, and of nothing else, in each layer.
    """
    cache = DynamicCache()  # one that forgets nothing: windows are a matter of masks in the stepped engine
    config = copy.deepcopy(model.generation_config)
    # Neutral values, and no None: `generate` takes None for a question that the checkpoint's own configuration answers.
    config.update(max_new_tokens=count, min_new_tokens=0, do_sample=False, num_beams=1, eos_token_id=[NO_TOKEN], pad_token_id=0)
    config.update(return_dict_in_generate=True, output_logits=True, num_return_sequences=1, max_length=None)
    config.update(temperature=None, top_k=None, top_p=None, min_p=None, typical_p=None)
    made = model.generate(**whole_inputs(request, model, device), generation_config=config, past_key_values=cache)
    length = int(request.inputs["input_ids"].shape[-1])
    layers = [(layer.keys[0], layer.values[0]) for layer in cache.layers]
    if not layers or any(part.shape[1] != length + count - 1 for layer in layers for part in layer):
        raise ValueError("its layers keep something else than the prompt's tokens")
    states = [part[:, :length].transpose(0, 1) for side in zip(*layers, strict=True) for part in side]
    owners = (getattr(owner, "rope_deltas", None) for owner in (model, getattr(model, "model", None)))
    delta = next((int(each.reshape(-1)[0]) for each in owners if each is not None), 0)
    return Taken(torch.cat(list(made.logits)), made.sequences[0, -count:].tolist(), states, delta)
