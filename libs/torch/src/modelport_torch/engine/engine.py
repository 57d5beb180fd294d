"""The engine: at every step one token for everybody who runs, and whoever fits joins."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

import torch

from modelport.contract.errors import InputTooLong, InvalidRequest, NotNumbers, UnsupportedParameter
from modelport.contract.generate import EngineLoad, FinishReason, GenerateEvent, GenerateRequest, TokenLogprob
from modelport_torch.engine.constraint import Grammars
from modelport_torch.engine.logprobs import describe
from modelport_torch.engine.model import SteppedModel
from modelport_torch.engine.prefixes import Prefixes
from modelport_torch.engine.rules import resolve_rules
from modelport_torch.engine.sampling import choose
from modelport_torch.engine.scheduler import Scheduler, groups, shares_prefill
from modelport_torch.engine.sequence import Sequence
from modelport_torch.memory import as_lost, as_out_of_memory, is_out_of_memory
from modelport_torch.support import engine_params

__all__ = ["TorchEngine"]

_log = logging.getLogger(__name__)
_NAN = "The model computed NaN instead of the next token."


class TorchEngine:
    """A stepped generation loop over one causal language model, as `modelport.contract.generate.Engine` describes it.

    Args:
        model: The model and its cache.
        defaults: transformers' GenerationConfig of the checkpoint.
        max_length: Most tokens of a sequence, prompt and output together; None if the model sets no limit.
        scheduler: Who runs.
        grammars: What compiles constraints; without it they are refused.
        prefixes: Where prompts are kept for requests that begin alike.
        clock: What deadlines are compared with.

    Attributes:
        max_length: Most tokens of a sequence: the limit given, or the whole cache if that is less.
        params: What it honours, in the names of `GenerateRequest.needs()`.
    """

    def __init__(
        self,
        model: SteppedModel,
        defaults: Any,
        max_length: int | None,
        scheduler: Scheduler,
        grammars: Grammars | None = None,
        prefixes: Prefixes | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._model = model
        self._defaults = defaults
        # A sequence alone must fit the cache, with room for its rounding up to blocks.
        self.max_length = min(max_length or scheduler.max_tokens, scheduler.max_tokens)
        self.params = engine_params(has_tokenizer=grammars is not None)
        self._grammars = grammars
        self._prefixes = prefixes or Prefixes(0)
        self._scheduler = scheduler
        self._clock = clock
        self._order = 0
        self._admitted: list[Sequence] = []

    @property
    def prefix_tokens(self) -> int:
        """How many tokens are kept for requests that begin alike."""
        return self._prefixes.max_tokens

    # ------------------------------------------------------------------------------------------------ the contract

    def add(self, request: GenerateRequest) -> None:
        """Queues a request; it joins at the next step that has room."""
        unknown = sorted(request.needs() - self.params | ({"num_beams"} if (request.params.num_beams or 1) > 1 else set()))
        if unknown:
            raise UnsupportedParameter(f"{unknown[0]} is not supported by the torch generation engine.", param=unknown[0])
        prompt = [int(token) for token in request.inputs["input_ids"].reshape(-1)]
        if not prompt:
            raise InvalidRequest("the prompt has no tokens; at least one is needed to start from.", param="prompt")
        outside = next((token for token in prompt if not 0 <= token < self._model.vocabulary), None)
        if outside is not None:
            raise InvalidRequest(
                f"the prompt has the token {outside}, and the model knows 0 to {self._model.vocabulary - 1}.", param="prompt"
            )
        if len(prompt) >= self.max_length:
            raise InputTooLong(
                f"the prompt has {len(prompt)} tokens, and prompt and output together may have {self.max_length}.",
                param="prompt",
            )
        if request.n < 1:
            raise InvalidRequest(f"n is {request.n}; it must be at least 1.", param="n")
        rules = resolve_rules(request.params, self._defaults, self._model.vocabulary)
        limit = min(rules.max_new_tokens or self.max_length, self.max_length - len(prompt))
        grammar = self._grammars.start(request.constraint) if self._grammars and request.constraint else None
        for index in range(request.n):
            self._order += 1
            own = None if grammar is None else grammar.copy()
            self._scheduler.add(Sequence(request, index, self._order, prompt, rules, limit, own))

    @torch.inference_mode()
    def cancel(self, id: int, index: int | None = None) -> None:
        """Ends a request, or one choice of it, before the next step; no event follows. Unknown ids are ignored."""
        self._take_out(lambda s: s.request.id == id and index in (None, s.index))

    def load(self) -> EngineLoad:
        """How full it is now; `running` and `waiting` count choices."""
        scheduler = self._scheduler
        return EngineLoad(
            running=len(scheduler.running) + len(scheduler.joining),
            waiting=len(scheduler.waiting),
            cache_used=scheduler.used(),
            cache_total=scheduler.max_tokens,
        )

    @torch.inference_mode()
    def step(self) -> list[GenerateEvent]:
        """One token for every running sequence; new ones join.

        If memory runs out, all who run start over from their tokens, half as many at once, and nobody notices but by the time
        that it takes. If the model itself fails, so do all who run: their rows are given up, and the exception goes on to the
        caller.

        Raises:
            DeviceFailed: the device is lost.
            NotNumbers: the model computed NaN for everybody aboard.
            OutOfMemory: one sequence alone, a small piece of its prompt at a time, does not fit in memory.
        """
        events: list[GenerateEvent] = []
        try:
            self._step(events)
            self._scheduler.ease()
        except Exception as error:
            if not is_out_of_memory(error):
                self._give_up()
                if (lost := as_lost(error)) is not None:
                    raise lost from None
                raise
            failed = as_out_of_memory(error, "a step of generation")
        else:
            return events
        # Here the failed step is out of reach, and with it the memory that it held.
        aboard = self._give_up()
        if not self._scheduler.shrink(len(aboard)):
            raise failed
        _log.warning("%s Its %d sequences start over, fewer at once.", failed.message, len(aboard))
        for sequence in aboard:
            self._requeue(sequence)
        return events

    def _give_up(self) -> list[Sequence]:
        """Nobody runs any more, and all memory is given back; who ran."""
        scheduler = self._scheduler
        aboard = {id(sequence): sequence for sequence in (*scheduler.running, *scheduler.joining, *self._admitted)}
        scheduler.running, scheduler.joining, self._admitted = [], [], []
        self._prefixes.clear()
        self._model.release()
        return list(aboard.values())

    def _step(self, events: list[GenerateEvent]) -> None:
        scheduler = self._scheduler
        events += self._expire()
        if scheduler.joining and not scheduler.can_grow():
            for sequence in scheduler.joining:
                self._requeue(sequence)
            scheduler.joining = []
        for row in scheduler.preempt():
            self._requeue(self._leave(row))
        rows = list(scheduler.running)
        logits = [self._model.advance(rows, scheduler.footprint()[0])] if rows else []
        logits += self._join(events)
        if logits:
            rows = scheduler.running
            events += self._take(rows, logits[0] if len(logits) == 1 else torch.cat(logits))
        if not scheduler.running and not scheduler.joining:
            self._model.rest()

    # ------------------------------------------------------------------------------------------------ joining

    def _join(self, events: list[GenerateEvent]) -> list[torch.Tensor]:
        """Prefills who joins; returns logits for the rows that are new, in their order.

        What fails here fails those who were to join, with an event, and nobody who runs.
        """
        scheduler = self._scheduler
        budget = scheduler.budget()
        if scheduler.joining:
            return self._continue_joining(events, budget)
        admitted = self._admitted = scheduler.admit()
        if not admitted:
            return []
        families: list[list[Sequence]] = []
        for sequence in admitted:
            if families and shares_prefill(families[-1][0], sequence):
                families[-1].append(sequence)
            else:
                families.append([sequence])
        logits: list[torch.Tensor] = []
        # Who goes on from a kept prefix has a place of its own to start from, and a long prompt is taken in pieces.
        for family in list(families):
            if self._resumes(family[0]) or (len(families) == 1 and self._model.pieces(family[0]) > budget):
                families.remove(family)
                scheduler.joining = family
                logits += self._continue_joining(events, budget)
        # Who brings more than tokens (images, audio) is prefilled alone: such inputs have shapes of their own.
        plain = [family[0] for family in families if not self._model.has_extra(family[0])]
        alone = [[family[0]] for family in families if self._model.has_extra(family[0])]
        family_of = {id(family[0]): family for family in families}
        for batch in groups(plain, budget) + alone:
            first = len(scheduler.running)
            scheduler.running += batch
            try:
                found, prompts = self._model.prefill(batch, first, scheduler.footprint())
            except Exception as error:
                if is_out_of_memory(error):
                    raise
                del scheduler.running[first:]
                lost = [s for lead in batch for s in family_of[id(lead)]]
                self._admitted = [s for s in self._admitted if s not in lost]
                events += [_failed(s, error) for s in lost]
                continue
            logits.append(found)
            for offset, (lead, prompt) in enumerate(zip(batch, prompts, strict=True)):
                lead.described = prompt
                self._keep(lead, first + offset)
                logits += self._fork(family_of[id(lead)], first + offset, found[offset : offset + 1])
        self._admitted = []
        return logits

    def _continue_joining(self, events: list[GenerateEvent], budget: int) -> list[torch.Tensor]:
        scheduler = self._scheduler
        lead, row = scheduler.joining[0], len(scheduler.running)
        try:
            logits, prompt = self._model.prefill_piece(lead, row, budget, scheduler.footprint())
        except Exception as error:
            if is_out_of_memory(error):
                raise
            events += [_failed(s, error) for s in scheduler.joining]
            self._admitted = [s for s in self._admitted if s not in scheduler.joining]
            scheduler.joining = []
            return []
        if prompt is not None:
            lead.described = (lead.described or []) + prompt
        if logits is None:
            return []
        family, scheduler.joining = scheduler.joining, []
        scheduler.running.append(lead)
        self._keep(lead, row)
        return [logits, *self._fork(family, row, logits)]

    def _resumes(self, sequence: Sequence) -> bool:
        """Starts a sequence, in the row after the running ones, from what is kept of its prompt; whether there is anything."""
        if not sequence.is_text or self._model.wants_prompt(sequence):
            return False
        prefix, length = self._prefixes.longest(sequence.owner, sequence.pending())
        if prefix is None:
            return False
        rows, longest = self._scheduler.footprint()
        self._model.resume(len(self._scheduler.running), prefix.states, length, (rows + 1, max(longest, sequence.length)))
        sequence.cached = length
        if not sequence.reported:
            sequence.reused = length
        return True

    def _keep(self, sequence: Sequence, row: int) -> None:
        """Keeps what `row` holds for requests that begin alike."""
        tokens = (sequence.prompt + sequence.tokens)[: sequence.cached]
        if not (sequence.is_text and self._prefixes.wants(sequence.owner, tokens)):
            return
        try:
            self._prefixes.keep(sequence.owner, tokens, self._model.read(row, len(tokens)))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            self._prefixes.clear()  # they are a luxury

    def _fork(self, family: list[Sequence], row: int, logits: torch.Tensor) -> list[torch.Tensor]:
        """The other choices of a request whose first has just been prefilled into `row`: copies of that row."""
        lead, out = family[0], []
        for sequence in family[1:]:
            self._scheduler.running.append(sequence)
            self._model.copy(row, len(self._scheduler.running) - 1, lead.cached, self._scheduler.footprint())
            sequence.cached, sequence.described, sequence.offset = lead.cached, lead.described, lead.offset
            out.append(logits)
        return out

    # ------------------------------------------------------------------------------------------------ choosing

    def _take(self, rows: list[Sequence], logits: torch.Tensor) -> list[GenerateEvent]:
        """Chooses a token for each row, and lets finished rows go; a row of NaN ends."""
        spoilt = logits.sum(-1).isnan().tolist()  # NaN goes through sums; −∞ is a token that a model never says
        if any(spoilt):
            return self._drop(rows, logits, spoilt)
        asked = [index for index, row in enumerate(rows) if row.request.logprobs is not None]
        # A copy, taken before penalties change the logits.
        raw = logits[torch.tensor(asked, device=logits.device)] if asked else logits[:0]
        tokens = choose(logits, rows)
        described: dict[int, tuple[float, tuple[TokenLogprob, ...]]] = {}
        if asked:
            most = max(rows[index].request.logprobs or 0 for index in asked)
            for index, value, top in zip(asked, *describe(raw, [tokens[i] for i in asked], most), strict=True):
                described[index] = value, top[: rows[index].request.logprobs]
        events = []
        finished: list[int] = []
        for index, (row, token) in enumerate(zip(rows, tokens, strict=True)):
            is_output, finish = _take_in(row, token)
            chosen = described.get(index) if is_output else None
            wants = row.request.logprobs is not None
            events.append(
                GenerateEvent(
                    id=row.request.id,
                    index=row.index,
                    tokens=(token,) if is_output else (),
                    logprobs=((chosen[0],) if chosen else ()) if wants else None,
                    top_logprobs=((chosen[1],) if chosen else ()) if wants else None,
                    prompt_logprobs=None if row.described is None else tuple(row.described),
                    cached_tokens=0 if row.reported else row.reused,
                    finish=finish,
                    error=f"the output cannot be held to its grammar any longer: {row.grammar.error}."
                    if finish == "error" and row.grammar
                    else "",
                )
            )
            row.reported, row.described = True, None
            if finish:
                finished.append(index)
        for index in reversed(finished):
            self._leave(index)
        return events

    def _drop(self, rows: list[Sequence], logits: torch.Tensor, spoilt: list[bool]) -> list[GenerateEvent]:
        """Ends rows of NaN; the others go on. Where it is all of them, the device is at fault."""
        if all(spoilt):
            raise NotNumbers(f"{_NAN} Try dtype = 'float32', or another backend.")
        place = {id(row): index for index, row in enumerate(rows)}
        gone = [self._leave(index) for index in reversed(range(len(spoilt))) if spoilt[index]]
        events = [GenerateEvent(id=s.request.id, index=s.index, finish="error", error=_NAN) for s in gone]
        self._prefixes.clear()  # there may be NaN in what was kept of them
        order = torch.tensor([place[id(row)] for row in self._scheduler.running], device=logits.device)
        return events + self._take(self._scheduler.running, logits[order])

    # ------------------------------------------------------------------------------------------------ leaving

    def _leave(self, row: int) -> Sequence:
        self._keep(self._scheduler.running[row], row)
        sequence, last = self._scheduler.leave(row)
        if last != row:
            self._model.move(last, row, self._scheduler.running[row].cached)
        if self._scheduler.joining:
            # The row of who is joining follows the running ones.
            self._model.move(last + 1, last, self._scheduler.joining[0].cached)
        sequence.cached = 0
        return sequence

    def _requeue(self, sequence: Sequence) -> None:
        sequence.cached, sequence.described = 0, None
        self._scheduler.add(sequence)

    def _expire(self) -> list[GenerateEvent]:
        now = self._clock()
        gone = self._take_out(lambda s: s.request.deadline is not None and s.request.deadline <= now)
        return [GenerateEvent(id=s.request.id, index=s.index, finish="cancelled") for s in gone]

    def _take_out(self, unwanted: Callable[[Sequence], bool]) -> list[Sequence]:
        scheduler = self._scheduler
        gone = scheduler.drop(unwanted)
        for row in reversed(range(len(scheduler.running))):
            if unwanted(scheduler.running[row]):
                gone.append(self._leave(row))
        if any(map(unwanted, scheduler.joining)):
            gone += [s for s in scheduler.joining if unwanted(s)]
            left = [s for s in scheduler.joining if not unwanted(s)]
            if left:  # the row stays, and the next choice leads
                left[0].cached, left[0].described = scheduler.joining[0].cached, scheduler.joining[0].described
            scheduler.joining = left
        return gone


def _take_in(row: Sequence, token: int) -> tuple[bool, FinishReason | None]:
    """Adds `token` to a sequence: whether it is part of the output, and how the sequence ends, if it does."""
    if token in row.rules.eos and (row.grammar is not None or not row.rules.ignore_eos):
        return False, "stop"
    row.tokens.append(token)
    if row.grammar is not None:
        row.grammar.accept(token)
        if row.grammar.is_over:
            return True, "error" if row.grammar.error else "stop"
    return True, "length" if len(row.tokens) >= row.limit else None


def _failed(sequence: Sequence, error: Exception) -> GenerateEvent:
    text = " ".join(str(error).split())[:300] or type(error).__name__
    return GenerateEvent(
        id=sequence.request.id, index=sequence.index, finish="error", error=f"the prompt could not be processed: {text}"
    )
