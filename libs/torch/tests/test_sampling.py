from __future__ import annotations

import warnings
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from transformers import GenerationConfig
from transformers.generation import logits_process as theirs

from modelport.contract import GenerateRequest, InvalidRequest, Sampling
from modelport_torch.engine.rules import Rules, resolve_rules
from modelport_torch.engine.sampling import choose, edit, filtered
from modelport_torch.engine.sequence import Sequence

VOCABULARY = 2000
PROMPT = [5, 6, 7, 5, 6, 9]
MADE = [11, 5, 6]


def row(seed: int | None = None, made: list[int] | None = None, **rules: Any) -> Sequence:
    request = GenerateRequest(id=1, inputs={"input_ids": np.zeros(0, np.int64)})
    made_row = Sequence(request, 0, 0, PROMPT, Rules(sample=True, seed=seed, **rules), 100)
    made_row.tokens = list(made or [])
    return made_row


def logits(rows: int = 3, scale: float = 4.0) -> torch.Tensor:
    return torch.randn(rows, VOCABULARY, generator=torch.Generator().manual_seed(3)) * scale


def warped(scores: torch.Tensor, *processors: Any) -> torch.Tensor:
    for processor in processors:
        scores = processor(torch.tensor([PROMPT + MADE]), scores)
    return scores.softmax(-1)


def ours(scores: torch.Tensor, *rows: Sequence) -> torch.Tensor:
    probabilities, tokens = filtered(scores, rows)
    if tokens is None:
        return probabilities
    return torch.zeros_like(scores).scatter(-1, tokens, probabilities)


FILTERS: list[tuple[dict[str, Any], list[Any]]] = [
    ({"temperature": 0.7}, [theirs.TemperatureLogitsWarper(0.7)]),
    ({"top_k": 7}, [theirs.TopKLogitsWarper(7)]),
    ({"top_k": 700}, [theirs.TopKLogitsWarper(700)]),
    ({"top_p": 0.8}, [theirs.TopPLogitsWarper(0.8)]),
    ({"top_p": 0.999}, [theirs.TopPLogitsWarper(0.999)]),
    ({"top_p": 0.0}, [theirs.TopPLogitsWarper(0.0)]),
    ({"min_p": 0.05}, [theirs.MinPLogitsWarper(0.05)]),
    ({"typical_p": 0.6}, [theirs.TypicalLogitsWarper(0.6)]),
    (
        {"temperature": 1.7, "top_k": 40, "top_p": 0.9, "min_p": 0.02},
        [
            theirs.TemperatureLogitsWarper(1.7),
            theirs.TopKLogitsWarper(40),
            theirs.TopPLogitsWarper(0.9),
            theirs.MinPLogitsWarper(0.02),
        ],
    ),
    (
        {"top_p": 0.95, "typical_p": 0.8},
        [theirs.TopPLogitsWarper(0.95), theirs.TypicalLogitsWarper(0.8)],
    ),
]  # fmt: skip


@pytest.mark.parametrize("scale", [0.5, 4.0], ids=["flat", "peaked"])
@pytest.mark.parametrize(("rules", "processors"), FILTERS, ids=lambda value: str(value) if isinstance(value, dict) else "")
def test_filters_leave_what_transformers_leaves(rules: dict[str, Any], processors: list[Any], scale: float) -> None:
    scores = logits(scale=scale)
    got = ours(scores.clone(), *(row(**rules) for _ in range(3)))
    torch.testing.assert_close(got, warped(scores, *processors), rtol=1e-4, atol=1e-7)


def test_each_row_keeps_its_own_filters() -> None:
    scores = logits()
    rows = row(top_k=3), row(top_p=0.5, temperature=0.5), row(min_p=0.2)
    got = ours(scores.clone(), *rows)
    alone = [ours(scores[i : i + 1].clone(), one)[0] for i, one in enumerate(rows)]
    torch.testing.assert_close(got, torch.stack(alone), rtol=1e-5, atol=1e-8)


EDITS: list[tuple[dict[str, Any], list[Any]]] = [
    ({"repetition_penalty": 1.3}, [theirs.RepetitionPenaltyLogitsProcessor(1.3)]),
    ({"no_repeat_ngram_size": 2}, [theirs.NoRepeatNGramLogitsProcessor(2)]),
    ({"no_repeat_ngram_size": 1}, [theirs.NoRepeatNGramLogitsProcessor(1)]),
    ({"suppress": (3, 9)}, [theirs.SuppressTokensLogitsProcessor([3, 9])]),
    ({"logit_bias": {4: 2.5, 8: -9.0}}, [theirs.SequenceBiasLogitsProcessor([[[4], 2.5], [[8], -9.0]])]),
    ({"min_new_tokens": 4, "eos": frozenset({2})}, [theirs.MinNewTokensLengthLogitsProcessor(len(PROMPT), 4, [2])]),
    ({"min_new_tokens": 3, "eos": frozenset({2})}, []),
    ({"begin_suppress": (3,)}, []),
]  # fmt: skip


@pytest.mark.parametrize(("rules", "processors"), EDITS, ids=lambda value: str(value) if isinstance(value, dict) else "")
def test_edits_change_logits_as_transformers_does(rules: dict[str, Any], processors: list[Any]) -> None:
    scores = logits(1)
    got = scores.clone()
    edit(got[0], row(made=MADE, **rules))
    wanted = scores.clone()
    for processor in processors:
        wanted = processor(torch.tensor([PROMPT + MADE]), wanted)
    torch.testing.assert_close(got, wanted)


def test_begin_suppress_holds_for_the_first_token_only() -> None:
    first, later = logits(1), logits(1)
    edit(first[0], row(begin_suppress=(3,)))
    edit(later[0], row(made=[1], begin_suppress=(3,)))
    assert first[0, 3] == float("-inf")
    assert later[0, 3] == logits(1)[0, 3]


def test_presence_and_frequency_count_generated_tokens_only() -> None:
    scores = torch.zeros(1, VOCABULARY)
    edit(scores[0], row(made=[11, 5, 5], presence_penalty=0.5, frequency_penalty=0.25))
    assert {int(i): float(scores[0, i]) for i in scores[0].nonzero()} == {11: -0.75, 5: -1.0}


def test_draws_follow_the_probabilities() -> None:
    scores = torch.full((1, VOCABULARY), float("-inf"))
    scores[0, [3, 7, 1900]] = torch.tensor([0.5, 0.3, 0.2]).log()
    for rules in ({}, {"top_p": 0.99999}):
        one = row(seed=1, **rules)
        counts = Counter(choose(scores.clone(), [one])[0] for _ in range(4000))
        assert {token: round(counts[token] / 4000, 1) for token in counts} == {3: 0.5, 7: 0.3, 1900: 0.2}


def test_draw_depends_on_its_own_seed_and_on_nothing_else() -> None:
    scores = logits(4, scale=1.0)
    alone = choose(scores[2:3].clone(), [row(seed=42, top_k=50)])
    crowd = choose(scores.clone(), [row(seed=1), row(top_p=0.9, seed=2), row(seed=42, top_k=50), row(seed=7, typical_p=0.5)])
    assert crowd[2] == alone[0]
    assert choose(scores[2:3].clone(), [row(seed=43, top_k=50)]) != alone


def test_greedy_rows_and_drawing_rows_share_a_step() -> None:
    scores = logits(2)
    greedy = row()
    greedy.rules = Rules()
    assert choose(scores.clone(), [greedy, row(top_k=1)]) == scores.argmax(-1).tolist()


# ------------------------------------------------------------------------------------------------- whether to sample

PLAIN = GenerationConfig()
SAMPLES = GenerationConfig(do_sample=True, temperature=0.6, top_p=0.9)


@pytest.mark.parametrize(
    ("params", "defaults", "samples"),
    [
        (Sampling(), PLAIN, False),
        (Sampling(), SAMPLES, True),
        (Sampling(temperature=0.7), PLAIN, True),
        (Sampling(top_p=0.9), PLAIN, True),
        (Sampling(top_k=5), PLAIN, True),
        (Sampling(temperature=0.0), SAMPLES, False),
        (Sampling(temperature=1e-40), SAMPLES, False),
        (Sampling(temperature=0.0, top_p=0.9), PLAIN, False),
        (Sampling(temperature=0.0, do_sample=True), PLAIN, False),
        (Sampling(do_sample=False, temperature=0.7), SAMPLES, False),
        (Sampling(do_sample=True), PLAIN, True),
        (Sampling(seed=3), PLAIN, False),
    ],
)
def test_sampling_is_decided_by_the_caller_then_by_the_checkpoint(
    params: Sampling, defaults: GenerationConfig, samples: bool
) -> None:
    assert resolve_rules(params, defaults, 100).sample is samples


def test_checkpoint_fills_what_the_caller_leaves_open() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        defaults = GenerationConfig(
            do_sample=True, temperature=0.6, top_p=0.9, repetition_penalty=1.1, eos_token_id=[2, 7, 999], suppress_tokens=[4, 999]
        )
    rules = resolve_rules(Sampling(top_p=0.5), defaults, 100)
    assert (rules.temperature, rules.top_p, rules.repetition_penalty) == (0.6, 0.5, 1.1)
    assert (rules.eos, rules.suppress, rules.top_k) == (frozenset({2, 7}), (4,), 0)


@pytest.mark.parametrize(
    ("params", "name"),
    [
        (Sampling(temperature=-1.0), "temperature"),
        (Sampling(top_p=1.5), "top_p"),
        (Sampling(top_k=-1), "top_k"),
        (Sampling(repetition_penalty=0.0), "repetition_penalty"),
        (Sampling(max_new_tokens=0), "max_new_tokens"),
        (Sampling(logit_bias={100: 1.0}), "logit_bias"),
        (Sampling(eos_token_id=[100]), "eos_token_id"),
    ],
)
def test_value_out_of_range_is_refused_by_name(params: Sampling, name: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        resolve_rules(params, PLAIN, 100)
    assert caught.value.param == name
