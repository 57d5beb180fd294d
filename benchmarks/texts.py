"""Texts of a known number of tokens, no two alike."""

from __future__ import annotations

import random

__all__ = ["prompts", "texts"]

_WORDS = (
    "the of and to in is was for on that with as by at from his it an are were which this be had not first one their has new "
    "who after two her she been other time when there all more year during will than about city under most can where people "
    "into part such world only water between house early later small number second large long music school light river winter"
).split()
"""Words that are one token each in the vocabularies of BERT and SmolLM2."""


def texts(count: int, tokens: int, seed: int = 0) -> list[str]:
    """`count` texts of `tokens` BERT tokens, [CLS] and [SEP] included."""
    chance = random.Random(seed)
    return [" ".join(chance.choices(_WORDS, k=tokens - 2)) for _ in range(count)]


def prompts(count: int, words: int = 54, seed: int = 0) -> list[str]:
    """`count` messages of so many words; SmolLM2's chat template makes about 87 tokens of 54."""
    chance = random.Random(seed)
    return ["Tell a story: " + " ".join(chance.choices(_WORDS, k=words)) for _ in range(count)]
