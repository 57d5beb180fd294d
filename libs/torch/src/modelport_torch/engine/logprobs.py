"""Log probabilities of tokens, from raw logits: before temperature, penalties and filters."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from modelport.contract.generate import TokenLogprob

__all__ = ["describe"]


def describe(logits: torch.Tensor, tokens: Sequence[int], count: int) -> tuple[list[float], list[tuple[TokenLogprob, ...]]]:
    """For each row of `logits` (rows, vocabulary): the log probability of its token, and the `count` likeliest tokens."""
    logs = logits.float().log_softmax(-1)
    chosen: list[float] = logs.gather(-1, torch.tensor(tokens, device=logs.device)[:, None])[:, 0].tolist()
    if not count:
        return chosen, [() for _ in tokens]
    values, indices = logs.topk(min(count, logs.shape[-1]), -1)
    top = [
        tuple(TokenLogprob(token, value) for token, value in zip(ids, row, strict=True))
        for ids, row in zip(indices.tolist(), values.tolist(), strict=True)
    ]
    return chosen, top
