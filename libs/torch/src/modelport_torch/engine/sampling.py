"""Choosing tokens from logits, for all rows of a step at once.

Semantics are those of transformers' logits processors, in their order: penalties and bans first, then temperature, top_k, top_p,
min_p, typical_p. Filters work on the likeliest candidates only, found with one partial sort, and fall back to a full one where
those do not suffice: the result is the same, the cost is not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence as Rows

import torch

from modelport_torch.dtype import has_float64
from modelport_torch.engine.sequence import Sequence

__all__ = ["choose", "edit", "filtered"]

_CANDIDATES = 256
_NOTHING = float("-inf")


def choose(logits: torch.Tensor, rows: Rows[Sequence]) -> list[int]:
    """The next token of each row of `logits` (rows, vocabulary), which may be changed."""
    editing = [index for index, row in enumerate(rows) if row.rules.edits or row.grammar is not None]
    # Those who draw from everything apart from those who filter, so that nobody pays for a sort that another needs.
    sampled = [index for index, row in enumerate(rows) if row.rules.sample]
    narrow = [index for index in sampled if rows[index].rules.filters]
    free = [index for index in sampled if not rows[index].rules.filters]
    if editing or sampled:
        logits = logits.float()
    for index in editing:
        edit(logits[index], rows[index])
    tokens: list[int] = logits.argmax(-1).tolist() if len(sampled) < len(rows) else [0] * len(rows)
    for drawing in (free, narrow):
        if drawing:
            scores = logits if len(drawing) == len(rows) else logits[torch.tensor(drawing, device=logits.device)]
            for index, token in zip(drawing, _draw(scores, [rows[i] for i in drawing]), strict=True):
                tokens[index] = token
    return tokens


def edit(logits: torch.Tensor, row: Sequence) -> None:
    """Applies penalties, biases, bans and the grammar of one sequence to its logits (vocabulary), in place."""
    rules = row.rules
    device = logits.device
    if rules.repetition_penalty != 1.0:
        seen = torch.tensor(sorted({*row.prompt, *row.tokens}), device=device)
        values = logits[seen]
        logits[seen] = torch.where(values < 0, values * rules.repetition_penalty, values / rules.repetition_penalty)
    if (rules.presence_penalty or rules.frequency_penalty) and row.tokens:
        counts = Counter(row.tokens)
        penalties = [rules.presence_penalty + rules.frequency_penalty * count for count in counts.values()]
        logits[torch.tensor(list(counts), device=device)] -= torch.tensor(penalties, device=device)
    if rules.logit_bias:
        biases = torch.tensor(list(rules.logit_bias.values()), device=device)
        logits[torch.tensor(list(rules.logit_bias), device=device)] += biases
    banned: set[int] = set()
    if rules.no_repeat_ngram_size:
        banned |= _repeats(row.prompt + row.tokens, rules.no_repeat_ngram_size)
    if len(row.tokens) < rules.min_new_tokens:
        banned |= rules.eos
    banned.update(rules.suppress)
    if not row.tokens:
        banned.update(rules.begin_suppress)
    if banned:
        logits[torch.tensor(sorted(banned), device=device)] = _NOTHING
    if row.grammar is not None:
        allowed = row.grammar.allowed(rules.eos).to(device)
        logits.masked_fill_(~allowed, _NOTHING)
        if logits.max() == _NOTHING:  # bans leave nothing of what the grammar allows: the grammar is what was promised
            logits.masked_fill_(allowed, 0.0)


def filtered(scores: torch.Tensor, rows: Rows[Sequence]) -> tuple[torch.Tensor, torch.Tensor | None]:
    """What may be drawn: (probabilities (rows, n), tokens (rows, n), or None if column j is token j).

    A token that a filter removed has probability 0.
    """
    rules = [row.rules for row in rows]
    device, vocabulary = scores.device, scores.shape[-1]
    temperature = torch.tensor([r.temperature for r in rules], device=device)[:, None]
    scores = scores / temperature
    if not any(r.filters for r in rules):
        return scores.softmax(-1), None
    needed = max((r.top_k for r in rules), default=0)
    all_of_it = any(r.typical_p < 1.0 or not r.filters for r in rules)
    wanted = vocabulary if all_of_it else min(max(needed, _CANDIDATES), vocabulary)
    while True:
        values, tokens = scores.topk(wanted, -1) if wanted < vocabulary else scores.sort(-1, descending=True)
        # Normalised over what top_k leaves, or over everything: as if nothing had been cut off.
        total = scores.logsumexp(-1, keepdim=True)
        top_k = torch.tensor([min(r.top_k, vocabulary) if r.top_k else vocabulary for r in rules], device=device)[:, None]
        if needed:
            values = values.masked_fill(torch.arange(wanted, device=device) >= top_k, _NOTHING)
            total = torch.where(top_k <= wanted, values.logsumexp(-1, keepdim=True), total)
        probabilities = (values - total).exp()
        top_p = torch.tensor([r.top_p for r in rules], device=device)[:, None]
        min_p = torch.tensor([r.min_p for r in rules], device=device)[:, None]
        before = probabilities.cumsum(-1) - probabilities
        out = (before >= top_p) & (top_p < 1.0) | (probabilities < min_p * probabilities[:, :1])
        # Sorted, so what follows a removed token is removed too; enough was sorted if every row lost, or top_k cut, its tail.
        if wanted == vocabulary or bool((out[:, -1:] | (top_k <= wanted)).all()):
            break
        wanted = vocabulary if wanted * 8 >= vocabulary else wanted * 8
    out[:, 0] = False
    values = values.masked_fill(out, _NOTHING)
    if any(r.typical_p < 1.0 for r in rules):
        mass = torch.tensor([r.typical_p for r in rules], device=device)[:, None]
        values = torch.where(mass < 1.0, _typical(values, mass), values)
    return values.softmax(-1), tokens


def _draw(scores: torch.Tensor, rows: Rows[Sequence]) -> list[int]:
    probabilities, tokens = filtered(scores, rows)
    if not has_float64(scores.device):
        probabilities, tokens = probabilities.cpu(), None if tokens is None else tokens.cpu()
    # One number per row from the row's own source, through the inverse of its distribution: neighbours change nothing.
    steps = probabilities.double().cumsum(-1)
    points = torch.tensor([row.draw.random() for row in rows], dtype=torch.float64, device=steps.device)[:, None]
    places = torch.searchsorted(steps, points * steps[:, -1:], right=True)
    # Rounding can push a point onto the very end; the last token that can be drawn is where the sum stops growing.
    last = (steps < steps[:, -1:]).sum(-1, keepdim=True)
    places = torch.minimum(places, last)
    if tokens is not None:
        places = tokens.gather(-1, places)
    found: list[int] = places[:, 0].tolist()
    return found


def _typical(values: torch.Tensor, mass: torch.Tensor) -> torch.Tensor:
    """Keeps the tokens whose surprise is nearest to the expected one, up to `mass` of probability."""
    logs = values.log_softmax(-1)
    entropy = -(logs * logs.exp()).nansum(-1, keepdim=True)
    distance = (-logs - entropy).abs()
    order = distance.argsort(-1)
    covered = values.gather(-1, order).softmax(-1).cumsum(-1)
    last = (covered < mass).sum(-1, keepdim=True).clamp(max=values.shape[-1] - 1)
    limit = distance.gather(-1, order.gather(-1, last))
    out = distance > limit
    out.scatter_(-1, order[:, :1], False)
    return values.masked_fill(out, _NOTHING)


def _repeats(tokens: list[int], size: int) -> set[int]:
    """Tokens that would complete an n-gram of `size` that occurred already."""
    if len(tokens) < size:
        return set()
    tail = tokens[len(tokens) - size + 1 :] if size > 1 else []
    return {tokens[i + size - 1] for i in range(len(tokens) - size + 1) if tokens[i : i + size - 1] == tail}
