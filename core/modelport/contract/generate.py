"""Autoregressive generation across the waist: a request in, events out; logits never cross.

An engine is stepped by the one device thread: `add` and `cancel` between steps, then `step`, which advances every running
request by one token and returns what happened to all of them::

    engine.add(GenerateRequest(id=1, entry="main", inputs={"input_ids": ids}, params=Sampling(max_new_tokens=8)))
    while engine.load().running or engine.load().waiting:
        for event in engine.step(): ...
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Protocol

import msgspec
import numpy as np

__all__ = ["Constraint", "Engine", "EngineLoad", "FinishReason", "GenerateEvent", "GenerateRequest", "Sampling", "TokenLogprob"]

FinishReason = Literal["stop", "length", "cancelled", "error"]


class Sampling(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """How to choose tokens, in the names and meanings of transformers' `GenerationConfig`, and a few more.

    `None` means: what the checkpoint's generation_config.json says, else greedy with no limit but the context.
    Added to transformers' names: `presence_penalty` and `frequency_penalty` (subtracted from the logits of tokens that
    were *generated* already: once, and once per occurrence), `logit_bias` (token id → added to its logit), `ignore_eos`,
    `seed` (choice i of n draws from seed + i).

    `temperature=0` means greedy.
    """

    max_new_tokens: int | None = None
    min_new_tokens: int | None = None
    do_sample: bool | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    typical_p: float | None = None
    repetition_penalty: float | None = None
    no_repeat_ngram_size: int | None = None
    num_beams: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: dict[int, float] | None = None
    eos_token_id: list[int] | None = None
    ignore_eos: bool | None = None
    seed: int | None = None

    def named(self) -> frozenset[str]:
        """The names of all parameters that are set; an engine must honour each (`Limits.params`)."""
        return frozenset(name for name in self.__struct_fields__ if getattr(self, name) is not None)


class Constraint(msgspec.Struct, frozen=True):
    """A language that the output must be in, as text; the engine compiles it."""

    kind: Literal["json_schema", "json_object", "regex", "choice", "grammar"]
    text: str = ""


class GenerateRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One request, of one or more choices.

    Args:
        id: Unique within the engine while the request lives.
        entry: The program's entry.
        inputs: What the processor made, without a batch axis: `input_ids` (length,) int64 and, where there are,
            `pixel_values`, `decoder_input_ids`, …; an engine hands what it does not know to the prefill.
        whole: Names of inputs that have all axes which the model takes, a batch axis among them if it takes one: they are not
            stacked, and the request shares no batch. For what has no row per prompt, as the patches of several images.
        n: How many choices; choice i draws from seed + i.
        logprobs: How many of the likeliest tokens to report at every step; 0 reports the chosen one only, `None` nothing.
        prompt_logprobs: The same for the prompt's own tokens.
        adapter: The name of a LoRA adapter, or None.
        cache_salt: Prefixes are shared only between requests of one salt.
        priority: Higher is sooner.
        deadline: `time.monotonic()` at which it ends, in this process's clock.
    """

    id: int
    entry: str = "main"
    inputs: Mapping[str, np.ndarray]
    whole: tuple[str, ...] = ()
    params: Sampling = Sampling()
    constraint: Constraint | None = None
    n: int = 1
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    adapter: str | None = None
    cache_salt: str = ""
    priority: int = 0
    deadline: float | None = None

    def needs(self) -> frozenset[str]:
        """Every name that must be in `Limits.params`: the sampling parameters, and features in use."""
        names = set(self.params.named())
        names |= {name for name in ("constraint", "logprobs", "prompt_logprobs", "adapter") if getattr(self, name) is not None}
        return frozenset(names | ({"n"} if self.n > 1 else set()))


class TokenLogprob(msgspec.Struct, frozen=True, array_like=True):
    """A token and the natural logarithm of its probability, before temperature and filters."""

    token: int
    logprob: float


class GenerateEvent(msgspec.Struct, frozen=True, kw_only=True):
    """What one step did to one choice.

    `tokens` are new (usually one; several with speculation). `finish` ends the choice: `stop` (an end token, which is not
    among `tokens`), `length`, `cancelled` or `error` (with `error` the sentence). `prompt_logprobs` and `cached_tokens`
    come once, with the first event; the first prompt token has no logprob, so the list starts with the second.
    """

    id: int
    index: int = 0
    tokens: tuple[int, ...] = ()
    logprobs: tuple[float, ...] | None = None
    top_logprobs: tuple[tuple[TokenLogprob, ...], ...] | None = None
    prompt_logprobs: tuple[tuple[TokenLogprob, ...], ...] | None = None
    cached_tokens: int = 0
    finish: FinishReason | None = None
    error: str = ""


class EngineLoad(msgspec.Struct, frozen=True, kw_only=True):
    """How full an engine is, for admission. Cache sizes are in tokens."""

    running: int
    waiting: int
    cache_used: int = 0
    cache_total: int = 0


class Engine(Protocol):
    """A stepped generation loop over one entry. Only the device thread calls it."""

    def add(self, request: GenerateRequest) -> None:
        """Queues a request; it joins at the next step that has room.

        Raises:
            InputTooLong: if prompt and one token can never fit.
            UnsupportedParameter: if it needs what `Limits.params` does not name.
        """

    def cancel(self, id: int, index: int | None = None) -> None:
        """Ends a request, or one choice of it, before the next step; no event follows. Unknown ids are ignored."""

    def step(self) -> list[GenerateEvent]:
        """Advances every running request. Empty if there is nothing to do; never blocks waiting for work.

        Raises:
            MemoryError, DeviceFailed: the device is at fault, not a request; all that run are ended, and may go elsewhere.
        """

    def load(self) -> EngineLoad:
        """How full it is now; cheap."""
