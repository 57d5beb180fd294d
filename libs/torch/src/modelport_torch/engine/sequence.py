"""One choice of one request while the engine works on it."""

from __future__ import annotations

import random

from modelport.contract.generate import GenerateRequest, TokenLogprob
from modelport_torch.engine.constraint import Grammar
from modelport_torch.engine.rules import Rules

__all__ = ["TEXT_INPUTS", "Sequence"]

TEXT_INPUTS = frozenset({"input_ids", "attention_mask"})
"""What a request of tokens alone brings."""


class Sequence:
    """A prompt, what has been generated after it, and how to choose what comes next.

    Attributes:
        order: Counts up over all sequences of an engine: age, and so the queue's order.
        prompt: Token ids given.
        tokens: Token ids generated so far.
        cached: How many leading tokens have keys and values in the cache; 0 unless it has a row.
        offset: What is added to the place of a token after the prompt for its position; 0 where there are tokens only.
        limit: Most tokens to generate.
        reused: How many tokens of its prompt came from another request.
        reported: Whether its first event is out, the one with what is known of the prompt.
        described: What was asked of the prompt's own tokens, until the first event takes it.
        grammar: How far it is in the language that its output is held to, if there is one.
        draw: Its own source of random numbers: what it draws does not depend on its neighbours.
    """

    __slots__ = (
        "cached", "described", "draw", "grammar", "index", "limit", "offset", "order", "prompt", "reported", "request",
        "reused", "rules", "tokens",
    )  # fmt: skip

    def __init__(
        self,
        request: GenerateRequest,
        index: int,
        order: int,
        prompt: list[int],
        rules: Rules,
        limit: int,
        grammar: Grammar | None = None,
    ) -> None:
        self.request = request
        self.index = index
        self.order = order
        self.prompt = prompt
        self.rules = rules
        self.limit = limit
        self.grammar = grammar
        self.tokens: list[int] = []
        self.cached = self.reused = self.offset = 0
        self.reported = False
        self.described: list[tuple[TokenLogprob, ...]] | None = None
        self.draw = random.Random(None if rules.seed is None else rules.seed + index)  # noqa: S311 — sampling, not secrets

    @property
    def length(self) -> int:
        """Tokens of prompt and output."""
        return len(self.prompt) + len(self.tokens)

    @property
    def is_text(self) -> bool:
        """Whether its request brings tokens and nothing else (no image, no audio)."""
        return self.request.inputs.keys() <= TEXT_INPUTS

    @property
    def owner(self) -> tuple[str, str]:
        """Whose prefixes it may share."""
        return self.request.cache_salt, self.request.adapter or ""

    @property
    def rank(self) -> tuple[int, int]:
        """Its place in the queue: lower is served first and given up last."""
        return -self.request.priority, self.order

    def pending(self) -> list[int]:
        """Tokens that have no keys and values yet: the prompt at first, then the last token; all after a preemption."""
        start = self.cached
        if start >= len(self.prompt):
            return self.tokens[start - len(self.prompt) :]
        return self.prompt[start:] + self.tokens
