"""One run of a model's own `generate`, stopped and let go at every token."""

from __future__ import annotations

import copy
import queue
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec
import numpy as np
import torch
from transformers import GenerationMixin, LogitsProcessorList, StoppingCriteria, StoppingCriteriaList

from modelport.contract.generate import FinishReason, GenerateEvent, GenerateRequest
from modelport.contract.program import Generate
from modelport_torch.engine.logprobs import describe
from modelport_torch.engine.own_rules import Watch, processors, tells_times
from modelport_torch.engine.rules import Rules
from modelport_torch.engine.sequence import TEXT_INPUTS
from modelport_torch.engine.whole import NO_TOKEN, whole_inputs
from modelport_torch.memory import is_out_of_memory

__all__ = ["OwnBatch", "Row"]


class Row:
    """One choice of a request; with beams, the whole request.

    Attributes:
        entry: What the program says of the loop.
        extent: Most tokens that it can come to keep.
        tokens: What has been generated; with beams, as many as were.
        is_open: Whether events of it can still follow.
    """

    def __init__(
        self,
        request: GenerateRequest,
        entry: Generate,
        index: int,
        order: int,
        length: int,
        rules: Rules,
        limit: int,
        beams: int,
    ) -> None:
        self.request = request
        self.entry = entry
        self.index = index
        self.order = order
        self.length = length
        self.rules = rules
        self.limit = limit
        self.beams = beams
        self.extent = beams * (length + limit)
        self.tokens: list[int] = []
        self.is_open = True

    def goes_with(self, other: Row) -> bool:
        """Whether both can share a batch and be answered as if alone."""
        return (
            self.beams == other.beams == 1
            and self._shapes == other._shapes
            and self._last == other._last
            and self._is_plain
            and other._is_plain
            and _without_limits(self.rules) == _without_limits(other.rules)
        )

    @property
    def _is_plain(self) -> bool:
        is_seeded = self.rules.sample and self.rules.seed is not None
        stacked = TEXT_INPUTS.union(spec.name for spec in self.entry.inputs)
        return not is_seeded and not self.request.whole and self.request.inputs.keys() <= stacked

    @property
    def _shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: np.shape(value) for name, value in self.request.inputs.items()}

    @property
    def _last(self) -> int | None:
        """With rules, the token that the decoder starts from decides which of them hold."""
        given = self.request.inputs.get("decoder_input_ids") if self.entry.rules else None
        return None if given is None else int(given[-1])


class OwnBatch:
    """`generate` in a thread of its own, which waits after each token for `step`: so there is one that computes at a time.

    Attributes:
        again: Rows that began in vain, because memory ran out, and have told nothing: they may begin again, fewer at once.
    """

    def __init__(self, model: Any, device: torch.device, rows: list[Row]) -> None:
        self.is_running = True
        self.again: list[Row] = []
        self._model = model
        self._device = device
        self._rows = rows
        self._go = threading.Semaphore(0)
        self._told: queue.SimpleQueue[torch.Tensor | BaseException | None] = queue.SimpleQueue()
        self._made: torch.Tensor | None = None
        self._watch = Watch() if any(row.request.logprobs is not None for row in rows) else None
        self._start = 0  # of what `generate` returns, how much it was given
        threading.Thread(target=self._run, name="modelport-generate", daemon=True).start()

    @property
    def open(self) -> list[Row]:
        """Rows of which events can still follow."""
        return [row for row in self._rows if row.is_open]

    def step(self) -> list[GenerateEvent]:
        """Lets one token be made; what that did."""
        self._go.release()
        told = self._told.get()
        if isinstance(told, torch.Tensor):
            return self._took(told)
        self.is_running = False
        if told is None:
            return self._ended()
        if is_out_of_memory(told) and len(self._rows) > 1:
            self.again = [row for row in self.open if not row.tokens]
            self._rows = [row for row in self._rows if row not in self.again]
        text = " ".join(str(told).split())[:300] or type(told).__name__
        return [self._event(row, finish="error", error=f"the model's own generate failed: {text}") for row in self.open]

    def drop(self, unwanted: Callable[[Row], bool]) -> list[Row]:
        """Ends rows; no event of them follows."""
        gone = [row for row in self.open if unwanted(row)]
        for row in gone:
            row.is_open = False
        return gone

    def close(self) -> None:
        """Ends all rows, and the thread with them."""
        self.drop(lambda row: True)
        while self.is_running:
            self.step()

    # ------------------------------------------------------------------------------------------- what was generated

    def _took(self, chosen: torch.Tensor) -> list[GenerateEvent]:
        """`chosen`: the latest token of each row, or of each beam."""
        events = []
        tokens = chosen.tolist()
        asked = [row.request.logprobs or 0 for row in self._rows]
        logs, top = describe(self._watch.logits, tokens, max(asked)) if self._watch is not None else ([], [])
        for at, (row, token) in enumerate(zip(self._rows, tokens, strict=False)):
            if not row.is_open:
                continue
            if row.beams > 1:
                row.tokens.append(token)
            elif token in row.rules.eos and not row.rules.ignore_eos:
                events.append(self._event(row, finish="stop"))
            else:
                row.tokens.append(token)
                event = self._event(row, (token,), "length" if len(row.tokens) >= row.limit else None)
                if row.request.logprobs is not None:
                    event = msgspec.structs.replace(event, logprobs=(logs[at],), top_logprobs=(top[at][: asked[at]],))
                events.append(event)
        return events

    def _ended(self) -> list[GenerateEvent]:
        """`generate` is over: beams are known now, and rows that it ended by itself are as long as it makes them."""
        events = []
        for row in self.open:
            if row.beams == 1:
                events.append(self._event(row, finish="length"))
                continue
            assert self._made is not None
            for index, made in enumerate(self._made[:, self._start :].tolist()):
                ends = frozenset() if row.rules.ignore_eos else row.rules.eos
                end = next((at for at, token in enumerate(made) if token in ends), None)
                tokens = tuple(made[:end])[: row.limit]
                finish: FinishReason = "length" if end is None else "stop"
                events.append(GenerateEvent(id=row.request.id, index=index, tokens=tokens, finish=finish))
            row.is_open = False
        return events

    def _event(
        self, row: Row, tokens: tuple[int, ...] = (), finish: FinishReason | None = None, error: str = ""
    ) -> GenerateEvent:
        row.is_open = finish is None
        return GenerateEvent(id=row.request.id, index=row.index, tokens=tokens, finish=finish, error=error)

    # ------------------------------------------------------------------------------------------------- in the thread

    @torch.inference_mode()
    def _run(self) -> None:
        self._go.acquire()
        first = self._rows[0]
        try:
            if first.rules.sample and first.rules.seed is not None:
                torch.manual_seed((first.rules.seed + first.index) % (1 << 63))
            inputs = self._inputs()
            # Whisper's own generate walks through windows by itself; an entry that declares rules does that elsewhere.
            generate = partial(GenerationMixin.generate, self._model) if first.entry.rules else self._model.generate
            self._made = generate(
                **inputs,
                generation_config=self._config(),
                **self._processors(inputs),
                stopping_criteria=StoppingCriteriaList([_AtEachToken(self._made_one)]),
            )
        except BaseException as error:
            self._told.put(error)
        else:
            self._told.put(None)

    def _made_one(self, ids: torch.Tensor) -> torch.Tensor:
        """Called by `generate` after each token: which sequences it is to end."""
        self._start = self._start or ids.shape[1] - 1
        self._told.put(ids[:, -1].cpu())
        self._go.acquire()
        ended = [not row.is_open for row in self._rows]
        return torch.tensor(ended, device=ids.device).repeat(
            len(ids) // len(ended)
        )  # by the beams, of which only one row has any

    def _inputs(self) -> dict[str, torch.Tensor]:
        requests = [row.request for row in self._rows]
        if len(requests) > 1:  # none of them has whole inputs
            stacked = {name: np.stack([np.asarray(one.inputs[name]) for one in requests]) for name in requests[0].inputs}
            requests = [msgspec.structs.replace(requests[0], inputs=stacked, whole=tuple(stacked))]
        return whole_inputs(requests[0], self._model, self._device)

    def _processors(self, inputs: dict[str, torch.Tensor]) -> dict[str, LogitsProcessorList]:
        """As an argument, if there are any: some models' own `generate` take none."""
        first, defaults = self._rows[0], self._model.generation_config
        timed = tells_times(first.entry, first.request.inputs, defaults)
        length = inputs["decoder_input_ids"].shape[1] if "decoder_input_ids" in inputs else 1
        made = [*processors(timed, length, defaults), *([self._watch] if self._watch is not None else [])]
        return {"logits_processor": LogitsProcessorList(made)} if made else {}

    def _config(self) -> Any:
        first = self._rows[0]
        rules = first.rules
        config = copy.deepcopy(self._model.generation_config)
        # Neutral values, and no None: `generate` takes None for a question that the checkpoint's own configuration answers.
        config.update(
            do_sample=rules.sample,
            repetition_penalty=rules.repetition_penalty,
            no_repeat_ngram_size=rules.no_repeat_ngram_size,
            min_new_tokens=rules.min_new_tokens,
            max_new_tokens=max(row.limit for row in self._rows),
            max_length=None,
            num_beams=first.beams,
            return_dict_in_generate=False,
            num_return_sequences=first.request.n if first.beams > 1 else 1,
            eos_token_id=[NO_TOKEN] if rules.ignore_eos or not rules.eos else sorted(rules.eos),
        )
        if rules.sample:
            config.update(
                temperature=rules.temperature,
                top_k=rules.top_k,
                top_p=rules.top_p,
                min_p=rules.min_p,
                typical_p=rules.typical_p,
            )
        else:
            config.update(temperature=None, top_k=None, top_p=None, min_p=None, typical_p=None)
        if config.pad_token_id is None:
            config.pad_token_id = min(rules.eos, default=0)
        return config


class _AtEachToken(StoppingCriteria):  # type: ignore[misc]
    def __init__(self, stop: Callable[[torch.Tensor], torch.Tensor]) -> None:
        self._stop = stop

    def __call__(self, input_ids: torch.Tensor, scores: Any, **rest: Any) -> torch.Tensor:
        return self._stop(input_ids)


def _without_limits(rules: Rules) -> tuple[Any, ...]:
    return tuple(getattr(rules, name) for name in rules.__struct_fields__ if name not in ("max_new_tokens", "seed"))
