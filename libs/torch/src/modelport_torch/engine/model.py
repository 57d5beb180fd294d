"""A causal language model and its cache, as the engine drives them: prefill, advance, move a row."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch

from modelport.contract.generate import TokenLogprob
from modelport_torch.engine.cache import SlotCache
from modelport_torch.engine.graphs import Recorder, StepGraphs, step_shape
from modelport_torch.engine.logprobs import describe
from modelport_torch.engine.masks import Masks
from modelport_torch.engine.sequence import Sequence
from modelport_torch.engine.whole import Taken, take_whole
from modelport_torch.memory import trim

__all__ = ["SteppedModel"]

_IDLE_TOKENS = 8192

Description = list[tuple[TokenLogprob, ...]]


class SteppedModel:
    """Runs forwards over rows of a `SlotCache`. The engine decides who has which row.

    Prompts that are prefilled together are padded on the right: causal attention never looks there, so no mask is needed.

    Args:
        recorder: What records steps as graphs; without it they run as they are.
    """

    def __init__(
        self, model: Any, device: torch.device, cache: SlotCache, recorder: Callable[[], Recorder] | None = None
    ) -> None:
        self._model = model
        self._device = device
        self._cache = cache
        config = model.config.get_text_config()
        self.vocabulary = int(config.vocab_size)
        self._masks = Masks(config, model.dtype)
        self._takes = frozenset(inspect.signature(model.forward).parameters)
        self._cache_name = "cache" if "cache" in self._takes else "past_key_values"  # its name before transformers 5.24
        # Filler for padded columns: any token but the pad token, about which models warn.
        self._filler = 1 if getattr(config, "pad_token_id", None) == 0 else 0
        self.graphs = StepGraphs(device, recorder, self._recorded) if recorder is not None else None

    def has_extra(self, sequence: Sequence) -> bool:
        """Whether its request brings more than tokens (images, audio)."""
        return sequence.cached == 0 and not sequence.is_text

    def pieces(self, sequence: Sequence) -> int:
        """Tokens of a prompt that may be prefilled piece by piece; 0 if it must not be cut."""
        return 0 if self.has_extra(sequence) else len(sequence.pending())

    def advance(self, rows: list[Sequence], aboard: int) -> torch.Tensor:
        """One forward of the last token of each row: logits (rows, vocabulary), which the next call may overwrite.

        `aboard` counts every row in use.
        """
        lengths = [row.cached for row in rows]
        self._cache.reserve(aboard, max(lengths) + 1)
        steps = [row.tokens[-1] for row in rows], lengths, [row.cached + row.offset for row in rows]
        logits = self._replayed(*steps) if self.graphs is not None else None
        if logits is None:
            logits = self._stepped(*steps)
        for row in rows:
            row.cached += 1
        return logits

    def _stepped(self, tokens: list[int], lengths: list[int], positions: list[int]) -> torch.Tensor:
        longest = max(lengths)
        self._cache.at_ends(lengths, self._device)
        ids, places, where = torch.tensor([tokens, lengths, positions], device=self._device)[:, :, None]
        even = min(lengths) == longest
        return self._forward(ids, where, None if even else self._masks(places, longest + 1))[:, -1]

    def _replayed(self, tokens: list[int], lengths: list[int], positions: list[int]) -> torch.Tensor | None:
        """The same from a graph, if there is one.

        Rows that fill its shape up have a token at position 0 and leave it in their last column: whoever is joining there has
        not come so far.
        """
        assert self.graphs is not None
        used = len(tokens)
        rows, width = step_shape(used, max(lengths) + 1, self._cache.shape)
        none = [0] * (rows - used)
        ends = [self._cache.shape[1] - 1] * len(none)
        filled = [tokens + [self._filler] * len(none), lengths + none, positions + none, self._cache.places(lengths + ends)]
        logits = self.graphs.step(filled, width, self._cache.generation)
        return None if logits is None else logits[:used]

    def _recorded(self, inputs: torch.Tensor, width: int) -> torch.Tensor:
        """What a graph records: the host decides nothing in here that depends on the content of `inputs`."""
        ids, lengths, positions, places = inputs[0][:, None], inputs[1][:, None], inputs[2][:, None], inputs[3]
        self._cache.at_places(places, width)
        return self._forward(ids, positions, self._masks(lengths, width))[:, -1]

    def prefill(self, batch: list[Sequence], first: int, size: tuple[int, int]) -> tuple[torch.Tensor, list[Description | None]]:
        """Takes whole prompts into the rows from `first` on: logits of each one's last token, and what was asked of the prompt.

        Args:
            size: (rows, tokens of the longest) that the cache holds when this is done.
        """
        if self.has_extra(batch[0]):
            return self._prefill_whole(batch[0], first, size), [None]
        pending = [row.pending() for row in batch]
        lengths = [len(tokens) for tokens in pending]
        width = max(lengths)
        self._cache.reserve(size[0], size[1])
        self._cache.at_rows(first, len(batch), 0, width)
        ids = torch.tensor([tokens + [self._filler] * (width - len(tokens)) for tokens in pending], device=self._device)
        positions = torch.arange(width, device=self._device).expand(len(batch), -1)
        whole = any(_wants_prompt(row) for row in batch)
        ends = sorted({length - 1 for length in lengths})
        keep: int | torch.Tensor = 0 if whole else 1 if len(ends) == 1 else torch.tensor(ends, device=self._device)
        logits = self._forward(ids, positions, None, keep=keep)
        # Logits of all columns, if they were asked for or the model cannot leave any out; else of the ends only.
        column = {end: end for end in ends} if logits.shape[1] == width else {end: at for at, end in enumerate(ends)}
        described = [
            _prompt_logprobs(logits[index, :length], tokens, row, None) if _wants_prompt(row) else None
            for index, (row, tokens, length) in enumerate(zip(batch, pending, lengths, strict=True))
        ]
        for row, length in zip(batch, lengths, strict=True):
            row.cached = length
        picked = torch.tensor([column[length - 1] for length in lengths], device=self._device)
        return logits[torch.arange(len(batch), device=self._device), picked], described

    def prefill_piece(
        self, sequence: Sequence, row: int, budget: int, size: tuple[int, int]
    ) -> tuple[torch.Tensor | None, Description | None]:
        """Takes the next `budget` tokens of a long prompt into `row`: logits once the prompt is complete, else None."""
        pending = sequence.pending()
        tokens, start = pending[:budget], sequence.cached
        last = len(tokens) == len(pending)
        self._cache.reserve(size[0], size[1])
        self._cache.at_rows(row, 1, start, len(tokens))
        places = torch.arange(start, start + len(tokens), device=self._device)[None]
        mask = self._masks(places, start + len(tokens)) if start else None
        whole = _wants_prompt(sequence)
        ids = torch.tensor([tokens], device=self._device)
        logits = self._forward(ids, places + sequence.offset, mask, keep=0 if whole else 1)
        following = None if last else pending[len(tokens)]
        described = _prompt_logprobs(logits[0], tokens, sequence, following) if whole else None
        sequence.cached += len(tokens)
        return (logits[:, -1] if last else None), described

    def read(self, row: int, length: int) -> list[torch.Tensor]:
        """Copies of what `row` holds of its first `length` tokens."""
        return self._cache.read(row, length)

    def resume(self, row: int, states: list[torch.Tensor], length: int, size: tuple[int, int]) -> None:
        """Row `row` begins with `length` tokens that were computed before."""
        self._cache.reserve(size[0], size[1])
        self._cache.write(row, states, length)

    def wants_prompt(self, sequence: Sequence) -> bool:
        """Whether something is asked of the prompt's own tokens, so that all of them must be computed."""
        return _wants_prompt(sequence)

    def copy(self, source: int, target: int, length: int, size: tuple[int, int]) -> None:
        """Makes row `target` a copy of `source`."""
        self._cache.reserve(size[0], size[1])
        self._cache.copy(source, target, length)

    def move(self, source: int, target: int, length: int) -> None:
        """Row `target` gets the first `length` tokens of `source`, whose own content no longer matters."""
        self._cache.copy(source, target, length)

    def rest(self) -> None:
        """Nobody runs: a cache that has grown large is given back."""
        rows, columns = self._cache.shape
        if rows * columns > _IDLE_TOKENS:
            self._release()

    def release(self) -> None:
        """Gives the cache up, whatever it holds, and what torch has set aside."""
        self._release()
        trim(self._device)

    def _release(self) -> None:
        if self.graphs is not None:
            self.graphs.clear()
        self._cache.release()

    def _forward(self, ids: torch.Tensor, positions: torch.Tensor, mask: Any, keep: int | torch.Tensor = 0) -> torch.Tensor:
        extra: dict[str, Any] = {}
        if "logits_to_keep" in self._takes and not (isinstance(keep, int) and keep == 0):
            extra["logits_to_keep"] = keep
        extra[self._cache_name] = self._cache
        out = self._model(input_ids=ids, position_ids=positions, attention_mask=mask, use_cache=True, **extra)
        logits: torch.Tensor = out.logits
        return logits

    def _prefill_whole(self, sequence: Sequence, row: int, size: tuple[int, int]) -> torch.Tensor:
        """Takes a prompt of more than text into `row`, and what came after it before a preemption: logits of the last token."""
        taken = take_whole(self._model, self._device, sequence.request)
        self.follow(sequence, taken, row, size)
        if not sequence.tokens:
            return taken.logits
        logits, _ = self.prefill_piece(sequence, row, len(sequence.tokens), size)
        assert logits is not None
        return logits

    def follow(self, sequence: Sequence, taken: Taken, row: int, size: tuple[int, int]) -> None:
        """Row `row` begins with a prompt that the model's own loop has read."""
        self.resume(row, taken.states, len(sequence.prompt), size)
        sequence.cached, sequence.offset = len(sequence.prompt), taken.offset


def _wants_prompt(sequence: Sequence) -> bool:
    return sequence.request.prompt_logprobs is not None and not sequence.reported


def _prompt_logprobs(logits: torch.Tensor, tokens: list[int], row: Sequence, following: int | None) -> Description:
    """For each token after the first of `tokens` (and `following`): itself, then the likeliest so many in its place."""
    targets = tokens[1:] + ([] if following is None else [following])
    if not targets:
        return []
    count = row.request.prompt_logprobs or 0
    chosen, top = describe(logits[: len(targets)], targets, count)
    return [(TokenLogprob(token, value), *best) for token, value, best in zip(targets, chosen, top, strict=True)]
