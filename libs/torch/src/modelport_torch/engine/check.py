"""Whether stepping a model gives what it gives by itself. An architecture whose masks, positions or cache differ from what the
engine knows would answer wrongly, not fail; so it is asked."""

from __future__ import annotations

from typing import Any

import torch

from modelport.contract.errors import ConfigurationError
from modelport.contract.generate import GenerateRequest
from modelport_torch.engine.cache import SlotCache
from modelport_torch.engine.model import SteppedModel
from modelport_torch.engine.rules import Rules
from modelport_torch.engine.sequence import Sequence
from modelport_torch.engine.whole import take_whole
from modelport_torch.memory import is_out_of_memory

__all__ = ["TOLERANCE", "check_stepping", "check_whole", "prompts"]

TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-3}
"""How far logits may differ, relatively; a tenth for the types that are not here."""

_BLOCK = 64
_AFTER = 3


def prompts(vocabulary: int, count: int) -> list[Sequence]:
    """Short sequences of different lengths, always the same."""
    texts = [[(3 + 4 * row + (13 + 16 * row) * i) % vocabulary for i in range(5 + 4 * row)] for row in range(count)]
    return [Sequence(GenerateRequest(id=row, inputs={}), 0, row, text, Rules(), 1) for row, text in enumerate(texts)]


@torch.inference_mode()
def check_stepping(model: Any, device: torch.device) -> int:
    """Compares two short prompts of different length, stepped together, with plain forwards; returns the cache's bytes per token.

    It is done once, when the model is loaded.

    Raises:
        ConfigurationError: if the logits differ, or the model cannot be called like that.
    """
    cache = SlotCache(2, 4 * _BLOCK)
    stepped = SteppedModel(model, device, cache)
    size = stepped.vocabulary
    rows = prompts(size, 2)
    kind = getattr(model.config, "model_type", type(model).__name__)
    try:
        got = [stepped.prefill(rows, 0, (2, 9))[0]]
        for row in rows:
            row.tokens.append(11 % size)
        got.append(stepped.advance(rows, 2))
    except Exception as error:
        if is_out_of_memory(error):
            raise
        cause = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise ConfigurationError(
            f"{kind} models cannot be called as the stepped engine does ({cause}); "
            "it is not supported for generation on the torch backends yet."
        ) from error
    for index, row in enumerate(rows):
        plain = model(input_ids=torch.tensor([row.prompt + row.tokens], device=device), use_cache=False).logits[0]
        for step, logits in enumerate(got):
            _compare(logits[index], plain[len(row.prompt) - 1 + step], model)
    return cache.bytes_per_token()


@torch.inference_mode()
def check_whole(model: Any, device: torch.device, request: GenerateRequest) -> None:
    """Compares what follows a prompt of more than text by the model's own loop with steps beside a row of another length.

    Raises:
        ConfigurationError: if the logits differ, or the model keeps something else than keys and values of the prompt.
    """
    kind = getattr(model.config, "model_type", type(model).__name__)
    try:
        taken = take_whole(model, device, request, _AFTER)
        prompt = [int(token) for token in request.inputs["input_ids"].reshape(-1)]
        size = (2, len(prompt) + _AFTER)
        stepped = SteppedModel(model, device, SlotCache(2, 2 * (size[1] // _BLOCK + 1) * _BLOCK))
        beside = Sequence(GenerateRequest(id=0, inputs={}), 0, 0, [prompt[0]] * 3, Rules(), _AFTER)
        row = Sequence(request, 0, 1, prompt, Rules(), _AFTER)
        stepped.prefill([beside], 0, size)
        stepped.follow(row, taken, 1, size)
        for index in range(1, _AFTER):
            row.tokens.append(taken.tokens[index - 1])
            beside.tokens.append(prompt[0])
            _compare(stepped.advance([beside, row], 2)[1], taken.logits[index], model)
    except ConfigurationError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        cause = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise ConfigurationError(f"prompts of more than text of {kind} models cannot be stepped ({cause}).") from error


def _compare(logits: torch.Tensor, reference: torch.Tensor, model: Any) -> None:
    """Returns if both are near enough to each other for the model's type."""
    distance = float((logits.float() - reference.float()).norm() / reference.float().norm().clamp(min=1e-12))
    if not distance <= TOLERANCE.get(model.dtype, 0.1):  # also if it is not a number
        kind = getattr(model.config, "model_type", type(model).__name__)
        raise ConfigurationError(
            f"{kind} models give other logits in a batch of steps than alone (relative error {distance:.2g}); "
            "the stepped engine does not support this architecture, and would answer wrongly."
        )
