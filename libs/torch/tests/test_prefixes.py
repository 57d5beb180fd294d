"""Prompts that begin alike: computed once, and answered as if each were alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from modelport.contract import GenerateRequest, Sampling
from modelport_torch.engine.prefixes import LEAST, Prefixes

KINDS = ["llama", "gpt2", "mistral", "qwen2", "gemma3"]
NOBODY = ("", "")
SHARED = np.random.default_rng(2).integers(5, 261, 48)


def prompt(*tail: int) -> np.ndarray:
    return np.concatenate([SHARED, np.array(tail, dtype=SHARED.dtype)])


def reference(folder: Path, ids: np.ndarray, new: int = 12) -> list[int]:
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    given = torch.from_numpy(ids)[None]
    made = model.generate(given, attention_mask=torch.ones_like(given), max_new_tokens=new, do_sample=False, pad_token_id=0)
    tokens = made[0, len(ids) :].tolist()
    return tokens[: tokens.index(2)] if 2 in tokens else tokens


def reused(people: Any, id: int) -> int:
    return sum(event.cached_tokens for event in people.events if event.id == id)


@pytest.mark.parametrize("kind", KINDS)
def test_a_shared_beginning_is_computed_once_and_changes_no_token(
    kind: str, tiny: Callable[..., Path], crowd: Callable[..., Any]
) -> None:
    people = crowd(tiny(kind))
    prompts = [prompt(7), prompt(8, 9), prompt(8, 9, 10, 11)]
    people.add(0, prompts[0], max_new_tokens=12)
    people.drain()
    for key, ids in enumerate(prompts[1:], 1):
        people.add(key, ids, max_new_tokens=12)
    people.drain()
    assert [reused(people, key) for key in range(3)] == [0, 48, 50], "the third goes on from the second"
    assert [people.tokens[key, 0] for key in range(3)] == [reference(tiny(kind), ids) for ids in prompts]


def test_a_conversation_goes_on_from_its_last_answer(tiny: Callable[..., Path], crowd: Callable[..., Any]) -> None:
    people = crowd(tiny("llama"))
    people.add(1, prompt(7), max_new_tokens=12, ignore_eos=True)
    people.drain()
    said = people.tokens[1, 0]
    people.add(2, prompt(7, *said, 30, 31), max_new_tokens=12)
    people.drain()
    assert reused(people, 2) == 49 + len(said) - 1, "the last token was chosen, but not computed"
    assert people.tokens[2, 0] == reference(tiny("llama"), prompt(7, *said, 30, 31))


def test_the_same_prompt_again_computes_its_last_token_only(tiny: Callable[..., Path], crowd: Callable[..., Any]) -> None:
    people = crowd(tiny("llama"))
    for key in (1, 2):
        people.add(key, prompt(7), max_new_tokens=12)
        people.drain()
    assert reused(people, 2) == 48
    assert people.tokens[1, 0] == people.tokens[2, 0]


def test_long_prompts_go_on_in_pieces_beside_others(tiny: Callable[..., Path], crowd: Callable[..., Any]) -> None:
    people = crowd(tiny("llama"), options={"prefill_tokens": 32})
    tail = np.random.default_rng(3).integers(5, 261, 150)
    people.add(1, prompt(7), max_new_tokens=2)
    people.drain()
    people.add(2, [5, 6, 7], max_new_tokens=30, ignore_eos=True)
    people.step()
    people.add(3, prompt(*tail), max_new_tokens=12)
    people.drain()
    assert reused(people, 3) == 48
    assert people.tokens[3, 0] == reference(tiny("llama"), prompt(*tail))
    assert len(people.tokens[2, 0]) == 30


def test_choices_share_and_are_counted_once(tiny: Callable[..., Path], crowd: Callable[..., Any]) -> None:
    people = crowd(tiny("llama"))
    people.add(1, prompt(7), max_new_tokens=2)
    people.drain()
    people.add(2, prompt(9), max_new_tokens=12, n=3)
    people.drain()
    assert reused(people, 2) == 48
    assert [people.tokens[2, index] for index in range(3)] == [reference(tiny("llama"), prompt(9))] * 3


def test_what_is_cancelled_leaves_its_prompt_to_others(tiny: Callable[..., Path], crowd: Callable[..., Any]) -> None:
    people = crowd(tiny("llama"))
    people.add(1, prompt(7), max_new_tokens=50)
    people.add(2, prompt(8), max_new_tokens=12)
    people.step()
    people.engine.cancel(1)
    people.add(3, prompt(9), max_new_tokens=12)
    people.drain()
    assert reused(people, 3) == 48
    assert [people.tokens[key, 0] for key in (2, 3)] == [reference(tiny("llama"), prompt(end)) for end in (8, 9)]


def test_salts_keep_prompts_apart(tiny: Callable[..., Path], crowd: Callable[..., Any]) -> None:
    people = crowd(tiny("llama"))
    for key, salt in ((1, "mine"), (2, "yours"), (3, "mine")):
        sampling = Sampling(max_new_tokens=4)
        people.engine.add(GenerateRequest(id=key, inputs={"input_ids": prompt(key)}, params=sampling, cache_salt=salt))
        people.drain()
    assert [reused(people, key) for key in (1, 2, 3)] == [0, 0, 48]


def test_logprobs_of_a_prompt_are_computed_for_all_of_it(tiny: Callable[..., Path], crowd: Callable[..., Any]) -> None:
    people = crowd(tiny("llama"))
    for key in (1, 2):
        people.add(key, prompt(7), max_new_tokens=2, prompt_logprobs=0)
        people.drain()
    told = [event.prompt_logprobs for event in people.events if event.prompt_logprobs is not None]
    assert [len(told[0]), len(told[1])] == [48, 48]
    assert reused(people, 2) == 0


def test_it_can_be_switched_off(tiny: Callable[..., Path], crowd: Callable[..., Any]) -> None:
    people = crowd(tiny("llama"), options={"prefix_tokens": 0})
    for key in (1, 2):
        people.add(key, prompt(7), max_new_tokens=2)
        people.drain()
    assert (people.engine.prefix_tokens, reused(people, 2)) == (0, 0)


def states(ids: list[int]) -> list[torch.Tensor]:
    return [torch.zeros(len(ids), 1, 1)]


def test_the_oldest_goes_when_there_is_no_room() -> None:
    prefixes = Prefixes(100)
    first, second, third = ([start, *range(40)] for start in (100, 101, 102))
    for ids in (first, second):
        prefixes.keep(NOBODY, ids, states(ids))
    assert prefixes.longest(NOBODY, [*first, 1])[1] == 41, "which makes it the latest"
    prefixes.keep(NOBODY, third, states(third))
    assert [prefixes.longest(NOBODY, [*ids, 1])[1] for ids in (first, second, third)] == [41, 0, 41]
    assert not prefixes.wants(NOBODY, list(range(101)))


def test_a_continuation_takes_the_place_of_what_it_continues() -> None:
    prefixes = Prefixes(60)
    prefixes.keep(NOBODY, list(range(30)), states(list(range(30))))
    assert not prefixes.wants(NOBODY, list(range(20)))
    assert prefixes.wants(NOBODY, list(range(50)))
    assert prefixes.wants(("salt", ""), list(range(20)))
    prefixes.keep(NOBODY, list(range(50)), states(list(range(50))))
    assert prefixes.longest(NOBODY, list(range(99)))[1] == 50


def test_a_few_common_tokens_are_not_worth_it() -> None:
    prefixes = Prefixes(60)
    ids = list(range(LEAST))
    prefixes.keep(NOBODY, ids, states(ids))
    assert prefixes.longest(NOBODY, ids) == (None, 0), "one must be left to compute"
    assert prefixes.longest(NOBODY, [*ids, 99])[1] == LEAST
