"""openvino_genai's continuous batching behind the contract's engine: paged attention and shared prefixes."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import openvino as ov
import openvino_genai as genai

from modelport.contract.backend import LoadContext
from modelport.contract.errors import InputTooLong, InvalidRequest, UnsupportedParameter
from modelport.contract.generate import EngineLoad, FinishReason, GenerateEvent, GenerateRequest
from modelport_backend_openvino.params import ENGINE_PARAMS
from modelport_torch.engine.rules import Rules, resolve_rules
from modelport_torch.support import cache_bytes_per_token, text_config

__all__ = ["OpenVinoEngine", "build_engine"]

_BLOCK = 32  # tokens of a cache block on OpenVINO's CPU; a GPU's are smaller, and the total is then a little less than planned
_PREFILL_TOKENS = 128  # a step that takes in so much keeps others waiting for about two of their own
_LEAST = 1e-6
_FINISH: dict[Any, FinishReason] = {
    genai.GenerationFinishReason.STOP: "stop",
    genai.GenerationFinishReason.LENGTH: "length",
}


class _Choice:
    """One choice of a request, which is a request of its own to the pipeline: so each has its seed and its end."""

    def __init__(self, request: GenerateRequest, index: int, handle: Any, rules: Rules) -> None:
        self.request = request
        self.index = index
        self.handle = handle
        self.rules = rules


class OpenVinoEngine:
    """A stepped generation loop, as `modelport.contract.generate.Engine` describes it.

    Args:
        pipeline: A `ContinuousBatchingPipeline`.
        defaults: The checkpoint's generation_config.json.
        vocabulary: How many tokens there are.
        max_length: Most tokens of a sequence, prompt and output together.
        cache_tokens: How many tokens the key/value cache holds.
        shares_prefixes: Whether prefixes are shared between requests.
        clock: What deadlines are compared with.
    """

    def __init__(
        self,
        pipeline: Any,
        defaults: dict[str, Any],
        *,
        vocabulary: int,
        max_length: int,
        cache_tokens: int,
        shares_prefixes: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.max_length = max_length
        self._pipeline = pipeline
        self._defaults = SimpleNamespace(**defaults)
        self._vocabulary = vocabulary
        self._cache_tokens = cache_tokens
        self._shares_prefixes = shares_prefixes
        self._clock = clock
        self._ids = itertools.count()
        self._choices: dict[int, _Choice] = {}

    def add(self, request: GenerateRequest) -> None:
        """Queues a request; it joins at the next step that has room."""
        if unknown := sorted(request.needs() - ENGINE_PARAMS):
            raise UnsupportedParameter(f"{unknown[0]} is not supported by OpenVINO's generation engine.", param=unknown[0])
        if request.cache_salt and self._shares_prefixes:
            raise UnsupportedParameter(
                "cache_salt is not supported while OpenVINO shares prefixes: set backends.openvino.prefix_cache = false.",
                param="cache_salt",
            )
        prompt = request.inputs["input_ids"].reshape(-1).astype(np.int64)
        self._check(prompt, request.n)
        rules = resolve_rules(request.params, self._defaults, self._vocabulary)
        limit = min(rules.max_new_tokens or self.max_length, self.max_length - len(prompt))
        for index in range(request.n):
            number = next(self._ids)
            config = _configured(rules, limit, index)
            handle = self._pipeline.add_request(number, ov.Tensor(prompt[None]), config)
            self._choices[number] = _Choice(request, index, handle, rules)

    def cancel(self, id: int, index: int | None = None) -> None:
        """Ends a request, or one choice of it; no event follows."""
        self._take_out(lambda choice: choice.request.id == id and index in (None, choice.index))

    def step(self) -> list[GenerateEvent]:
        """One token for every running choice; new ones join, and long prompts are taken in piece by piece."""
        now = self._clock()
        late = self._take_out(lambda choice: choice.request.deadline is not None and choice.request.deadline <= now)
        events = [GenerateEvent(id=c.request.id, index=c.index, finish="cancelled") for c in late]
        if not self._pipeline.has_non_finished_requests():
            return events
        try:
            self._pipeline.step()
        except Exception:
            self._take_out(lambda _: True)
            raise
        for number, choice in list(self._choices.items()):
            for event in self._read(choice):
                events.append(event)
                if event.finish is not None:
                    del self._choices[number]
                    break
        return events

    def load(self) -> EngineLoad:
        """How full it is now; `running` counts choices, those that wait for room included."""
        metrics = self._pipeline.get_metrics()
        running = len(self._choices)
        used = round(metrics.cache_usage / 100 * self._cache_tokens) if running else 0
        return EngineLoad(running=running, waiting=0, cache_used=min(used, self._cache_tokens), cache_total=self._cache_tokens)

    def close(self) -> None:
        """Lets go of everything; the pipeline complains of requests that are left in it."""
        self._take_out(lambda _: True)
        while self._pipeline.has_non_finished_requests():
            self._pipeline.step()
        self._pipeline = None

    def _check(self, prompt: np.ndarray, n: int) -> None:
        if not len(prompt):
            raise InvalidRequest("the prompt has no tokens; at least one is needed to start from.", param="prompt")
        outside = prompt[(prompt < 0) | (prompt >= self._vocabulary)]
        if len(outside):
            raise InvalidRequest(
                f"the prompt has the token {outside[0]}, and the model knows 0 to {self._vocabulary - 1}.", param="prompt"
            )
        if len(prompt) >= self.max_length:
            raise InputTooLong(
                f"the prompt has {len(prompt)} tokens, and prompt and output together may have {self.max_length}.",
                param="prompt",
            )
        if n < 1:
            raise InvalidRequest(f"n is {n}; it must be at least 1.", param="n")

    def _read(self, choice: _Choice) -> list[GenerateEvent]:
        """What the pipeline has for a choice: its new tokens, without the end token, and its end."""
        events = []
        while choice.handle.can_read():
            (output,) = choice.handle.read().values()
            tokens = tuple(int(token) for token in output.generated_ids)
            finish = _FINISH.get(output.finish_reason)
            if finish == "stop" and tokens and tokens[-1] in choice.rules.eos:
                tokens = tokens[:-1]
            events.append(GenerateEvent(id=choice.request.id, index=choice.index, tokens=tokens, finish=finish))
        if choice.handle.get_status() == genai.GenerationStatus.IGNORED:
            why = "the key/value cache has no room for it; ask for less, or give the model more cache."
            events.append(GenerateEvent(id=choice.request.id, index=choice.index, finish="error", error=why))
        return events

    def _take_out(self, unwanted: Callable[[_Choice], bool]) -> list[_Choice]:
        gone = {number: choice for number, choice in self._choices.items() if unwanted(choice)}
        for number, choice in gone.items():
            choice.handle.cancel()
            del self._choices[number]
        return list(gone.values())


def _configured(rules: Rules, limit: int, index: int) -> Any:
    """openvino_genai's configuration of one choice."""
    config = genai.GenerationConfig()
    config.max_new_tokens = limit
    config.min_new_tokens = min(rules.min_new_tokens, limit)
    config.ignore_eos = rules.ignore_eos
    config.stop_token_ids = set(rules.eos)
    config.repetition_penalty = rules.repetition_penalty
    config.presence_penalty = rules.presence_penalty
    config.frequency_penalty = rules.frequency_penalty
    config.do_sample = rules.sample
    if rules.sample:
        config.temperature = rules.temperature
        config.top_p = max(rules.top_p, _LEAST)  # 0 and 1 mean the likeliest token alone, and are outside of its ranges
        config.min_p = min(rules.min_p, 1 - _LEAST)
        if rules.top_k:
            config.top_k = rules.top_k
        seed = rules.seed if rules.seed is not None else int.from_bytes(np.random.default_rng().bytes(4), "little")
        config.rng_seed = (seed + index) % (1 << 63)
    try:
        config.validate()
    except RuntimeError as error:
        raise InvalidRequest(f"OpenVINO refuses these parameters: {str(error).strip().splitlines()[-1]}.") from None
    return config


def build_engine(
    context: LoadContext, folder: Path, device: str, dtype: str, properties: dict[str, Any], budget: int
) -> OpenVinoEngine:
    """The engine over a converted decoder; its cache takes `budget` bytes, or what full batches of full length would need."""
    config = context.card.config
    per_token = max(cache_bytes_per_token(config, dtype), 1)
    longest = min((n for n in (context.max_length, context.card.limit) if n is not None), default=1 << 20)
    blocks = max(min(budget // per_token, context.max_items * (longest + _BLOCK)) // _BLOCK, 2)
    plan = genai.SchedulerConfig()
    plan.cache_size = 0
    plan.num_kv_blocks = blocks
    plan.max_num_seqs = context.max_items
    plan.max_num_batched_tokens = int(context.options.get("prefill_tokens", _PREFILL_TOKENS))
    plan.dynamic_split_fuse = True
    plan.enable_prefix_caching = bool(context.options.get("prefix_cache", True))
    precision = str(properties["INFERENCE_PRECISION_HINT"])
    kept = str(context.options.get("kv_cache", precision))
    pipeline = genai.ContinuousBatchingPipeline(
        str(folder), plan, device, {**_engine_properties(properties), "KV_CACHE_PRECISION": kept}
    )
    defaults = folder / "generation_config.json"
    return OpenVinoEngine(
        pipeline,
        json.loads(defaults.read_text(encoding="utf-8")) if defaults.exists() else {},
        vocabulary=int(text_config(config)["vocab_size"]),
        max_length=min(longest, (blocks - 1) * _BLOCK),
        cache_tokens=blocks * _BLOCK,
        shares_prefixes=plan.enable_prefix_caching,
    )


def _engine_properties(properties: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in properties.items() if name != "PERFORMANCE_HINT"}
