"""Keys and values of prompts that were computed before, for requests that begin alike."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

__all__ = ["Prefix", "Prefixes"]

LEAST = 16
"""Fewer tokens in common are computed again: they cost less than a forward of their own."""


class Prefix:
    """Tokens, and their keys and values: one (tokens, heads, width) tensor for each buffer of the cache."""

    __slots__ = ("ids", "owner", "states")

    def __init__(self, owner: tuple[str, str], ids: np.ndarray, states: list[torch.Tensor]) -> None:
        self.owner = owner
        self.ids = ids
        self.states = states


class Prefixes:
    """Keeps the latest, up to `max_tokens` in all.

    `owner` is (cache salt, adapter): prefixes are shared within one owner only.
    """

    def __init__(self, max_tokens: int) -> None:
        self.max_tokens = max_tokens
        self._kept: list[Prefix] = []  # the latest last

    def longest(self, owner: tuple[str, str], tokens: Sequence[int]) -> tuple[Prefix | None, int]:
        """The prefix with the most leading tokens in common, and how many; (None, 0) if they are not worth it.

        At least the last token is left to compute: its logits are wanted.
        """
        ids = np.asarray(tokens[:-1])
        best, most = None, LEAST - 1
        for prefix in self._kept:
            if prefix.owner == owner and (common := _common(prefix.ids, ids)) > most:
                best, most = prefix, common
        if best is None:
            return None, 0
        self._kept.remove(best)
        self._kept.append(best)
        return best, most

    def wants(self, owner: tuple[str, str], tokens: Sequence[int]) -> bool:
        """Whether these tokens are worth keeping, and not kept yet."""
        if not LEAST <= len(tokens) <= self.max_tokens:
            return False
        ids = np.asarray(tokens)
        return not any(prefix.owner == owner and _common(prefix.ids, ids) == len(ids) for prefix in self._kept)

    def keep(self, owner: tuple[str, str], tokens: Sequence[int], states: list[torch.Tensor]) -> None:
        """Keeps them, instead of those that they continue; the oldest go when there is no room."""
        ids = np.asarray(tokens)
        self._kept = [kept for kept in self._kept if kept.owner != owner or _common(kept.ids, ids) < len(kept.ids)]
        self._kept.append(Prefix(owner, ids, states))
        while sum(len(prefix.ids) for prefix in self._kept) > self.max_tokens:
            del self._kept[0]

    def clear(self) -> None:
        """Forgets all."""
        self._kept.clear()


def _common(first: np.ndarray, second: np.ndarray) -> int:
    """How many leading tokens are equal."""
    size = min(len(first), len(second))
    different = first[:size] != second[:size]
    return int(different.argmax()) if different.any() else size
