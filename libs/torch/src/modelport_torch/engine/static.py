"""The model's own `generate` in static batches: for architectures that cannot be stepped, and for beam search."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import Any

import torch

from modelport.contract.errors import InputTooLong, InvalidRequest, UnsupportedParameter
from modelport.contract.generate import EngineLoad, GenerateEvent, GenerateRequest
from modelport.contract.program import Generate
from modelport_torch.engine.own import OwnBatch, Row
from modelport_torch.engine.rules import resolve_rules
from modelport_torch.memory import trim
from modelport_torch.support import static_params

__all__ = ["StaticEngine"]

_PLAIN = Generate()


class StaticEngine:
    """A generation loop, as `modelport.contract.generate.Engine` describes it, whose requests join when a batch begins.

    A batch holds requests of one prompt length and one set of parameters, so that nothing is padded and every answer is what
    `generate` gives alone. A step is one token of the batch that runs. Requests that sample with a seed, search with beams or
    bring arrays that the entry does not declare run alone; declared ones are stacked where their shapes are equal. If memory
    runs out before a batch has told anything, it begins again as smaller ones.

    Args:
        model: The model.
        device: Where it is.
        max_rows: Most sequences of a batch, beams counted.
        max_length: Most tokens of a sequence, prompt and output together; of encoder and decoder each, where there are two.
        max_tokens: Most tokens that a batch may keep keys and values of.
        why: Why generation runs like this, as a sentence.
        entry: What the program says of the loop: its inputs, and rules over logits.
        clock: What deadlines are compared with.
    """

    prefix_tokens = 0

    def __init__(
        self,
        model: Any,
        device: torch.device,
        *,
        max_rows: int,
        max_length: int | None,
        max_tokens: int,
        why: str = "",
        entry: Generate = _PLAIN,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.max_length = min(max_length or max_tokens, max_tokens)
        self.how = f"generate, in static batches: {why}"
        self.params = static_params(entry.rules)
        self._entry = entry
        self._model = model
        self._device = device
        self._max_rows = self._rows_at_once = max_rows
        self._max_tokens = max_tokens
        self._clock = clock
        self._vocabulary = int(model.config.get_text_config().vocab_size)
        self._known = _known_tokens(model, self._vocabulary)
        self._has_encoder = bool(model.config.is_encoder_decoder)
        # What is not text has keys and values of its own length, of which only the configuration knows the most.
        self._heard = int(getattr(model.config, "max_source_positions", None) or 0)
        self._order = itertools.count()
        self._waiting: list[Row] = []
        self._batch: OwnBatch | None = None

    def add(self, request: GenerateRequest) -> None:
        """Queues a request; it joins the next batch that it fits."""
        if unknown := sorted(request.needs() - self.params):
            raise UnsupportedParameter(
                f"{unknown[0]} is not supported where generation runs in static batches (beam search, and"
                " architectures and prompts with images that cannot be stepped).",
                param=unknown[0],
            )
        ids = request.inputs.get("input_ids")
        length = 0 if ids is None else int(ids.shape[-1])
        if not length and (ids is not None or not request.inputs):
            raise InvalidRequest("the prompt has no tokens; at least one is needed to start from.", param="prompt")
        if ids is not None and not (int(ids.min()) >= 0 and int(ids.max()) < self._known):
            raise InvalidRequest(f"the prompt has a token that is none of 0 to {self._known - 1}.", param="prompt")
        taken = 0 if self._has_encoder else length
        if length > self.max_length or taken >= self.max_length:
            raise InputTooLong(
                f"the prompt has {length} tokens, and prompt and output together may have {self.max_length}.", param="prompt"
            )
        if request.n < 1:
            raise InvalidRequest(f"n is {request.n}; it must be at least 1.", param="n")
        rules = resolve_rules(request.params, self._model.generation_config, self._vocabulary)
        beams = self._beams(request)
        limit = min(rules.max_new_tokens or self.max_length, self.max_length - taken)
        kept = self._heard if ids is None else length
        room = self._max_tokens // beams - kept
        if room < 1 or (rules.max_new_tokens and min(rules.max_new_tokens, limit) > room):
            raise InputTooLong(
                f"{beams} beams of {kept + limit} tokens do not fit into the cache, which holds {self._max_tokens}: ask for"
                " fewer beams, or fewer tokens.",
                param="num_beams",
            )
        if beams > 1 and request.logprobs is not None:
            raise InvalidRequest(
                "logprobs of tokens are not known where beams are searched; ask for one of the two.", param="num_beams"
            )
        choices = 1 if beams > 1 else request.n
        for index in range(choices):
            self._queue([Row(request, self._entry, index, next(self._order), kept, rules, min(limit, room), beams)])

    def cancel(self, id: int, index: int | None = None) -> None:
        """Ends a request, or one choice of it, before the next step; no event follows."""
        self._take_out(lambda row: row.request.id == id and (index is None or row.index == index))

    def load(self) -> EngineLoad:
        """How full it is now; `running` and `waiting` count choices."""
        running = self._batch.open if self._batch is not None else []
        used = min(sum(row.beams * (row.length + len(row.tokens)) for row in running), self._max_tokens)
        return EngineLoad(running=len(running), waiting=len(self._waiting), cache_used=used, cache_total=self._max_tokens)

    def step(self) -> list[GenerateEvent]:
        """One token of the batch that runs; the next one begins when it is over."""
        now = self._clock()
        late = self._take_out(lambda row: row.request.deadline is not None and row.request.deadline <= now)
        events = [GenerateEvent(id=row.request.id, index=row.index, finish="cancelled") for row in late]
        if self._batch is None and self._waiting:
            self._batch = OwnBatch(self._model, self._device, self._next())
        if self._batch is not None:
            events += self._batch.step()
            again = self._batch.again
            self._let_go()
            if again:
                self._rows_at_once = max(len(again) // 2, 1)
                self._queue(again)
                trim(self._device)
        return events

    def close(self) -> None:
        """Ends what runs."""
        self._waiting.clear()
        if self._batch is not None:
            self._batch.close()
            self._batch = None

    def _queue(self, rows: list[Row]) -> None:
        self._waiting = sorted([*self._waiting, *rows], key=lambda row: (-row.request.priority, row.order))

    def _beams(self, request: GenerateRequest) -> int:
        asked = request.params.num_beams
        beams = int(asked or getattr(self._model.generation_config, "num_beams", None) or 1)
        if not 1 <= beams <= self._max_rows:
            raise InvalidRequest(f"num_beams is {beams}; it must be between 1 and {self._max_rows} here.", param="num_beams")
        if beams > 1 and request.n > beams:
            raise InvalidRequest(f"n is {request.n}, and {beams} beams give {beams} answers at most.", param="n")
        return beams

    def _next(self) -> list[Row]:
        """Takes the rows of the next batch off the queue: the first, and those like it that fit beside it."""
        first = self._waiting[0]
        rows, extent = [first], first.extent
        for row in self._waiting[1:]:
            grown = max(extent, row.extent)
            if len(rows) == self._rows_at_once or not first.goes_with(row):
                continue
            if grown * (len(rows) + 1) <= self._max_tokens:
                rows.append(row)
                extent = grown
        taken = set(map(id, rows))
        self._waiting = [row for row in self._waiting if id(row) not in taken]
        return rows

    def _take_out(self, unwanted: Callable[[Row], bool]) -> list[Row]:
        gone = [row for row in self._waiting if unwanted(row)]
        self._waiting = [row for row in self._waiting if not unwanted(row)]
        if self._batch is not None:
            gone += self._batch.drop(unwanted)
            self._let_go()
        return gone

    def _let_go(self) -> None:
        """Ends a batch of which nothing more is wanted."""
        if self._batch is not None and not self._batch.open:
            self._batch.close()
            self._batch = None


def _known_tokens(model: Any, vocabulary: int) -> int:
    """How many tokens a prompt may be made of: marks of images (Mllama's) may lie above those that can be generated."""
    try:
        return max(vocabulary, int(model.get_input_embeddings().num_embeddings))
    except (AttributeError, NotImplementedError):
        return vocabulary
