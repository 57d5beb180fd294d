"""A generation engine over a `TinyNetwork`, and the sampling it does: readable before fast."""

from __future__ import annotations

from collections import Counter, deque

import numpy as np

from modelport.contract.errors import InputTooLong, UnsupportedParameter
from modelport.contract.generate import EngineLoad, GenerateEvent, GenerateRequest, Sampling, TokenLogprob
from modelport.testing.fake_network import TinyNetwork

__all__ = ["TinyEngine", "filtered", "penalised"]

_NEVER = np.float32(-np.inf)


class _Choice:
    def __init__(self, request: GenerateRequest, index: int) -> None:
        self.request, self.index = request, index
        self.prompt: list[int] = [int(token) for token in request.inputs["input_ids"]]
        self.generated: list[int] = []
        self.random = np.random.default_rng((request.params.seed or 0) + index)
        self.is_first = True


class TinyEngine:
    """Steps all choices that fit into `rows`; the others wait. See `contract.generate.Engine`."""

    def __init__(self, network: TinyNetwork, params: frozenset[str], rows: int = 8, context: int = 64) -> None:
        self._network, self._params, self._rows, self._context = network, params, rows, context
        self._running: list[_Choice] = []
        self._waiting: deque[_Choice] = deque()

    def add(self, request: GenerateRequest) -> None:
        """Queues a request."""
        missing = sorted(request.needs() - self._params)
        if missing:
            raise UnsupportedParameter(f"this engine does not support {missing[0]!r}", param=missing[0])
        length = len(request.inputs["input_ids"])
        if length + 1 > self._context:
            raise InputTooLong(f"The prompt has {length} tokens; prompt and answer together may have {self._context}.")
        self._waiting.extend(_Choice(request, index) for index in range(request.n))

    def cancel(self, id: int, index: int | None = None) -> None:
        """Ends a request, or one choice of it."""

        def stays(choice: _Choice) -> bool:
            return choice.request.id != id or (index is not None and choice.index != index)

        self._running = [choice for choice in self._running if stays(choice)]
        self._waiting = deque(choice for choice in self._waiting if stays(choice))

    def step(self) -> list[GenerateEvent]:
        """One token for every running choice."""
        while self._waiting and len(self._running) < self._rows:
            self._running.append(self._waiting.popleft())
        events = [self._advance(choice) for choice in self._running]
        ended = {(event.id, event.index) for event in events if event.finish is not None}
        self._running = [choice for choice in self._running if (choice.request.id, choice.index) not in ended]
        return events

    def load(self) -> EngineLoad:
        """How full it is."""
        used = sum(len(choice.prompt) + len(choice.generated) for choice in self._running)
        total = self._rows * self._context
        return EngineLoad(running=len(self._running), waiting=len(self._waiting), cache_used=used, cache_total=total)

    def _advance(self, choice: _Choice) -> GenerateEvent:
        request, params = choice.request, choice.request.params
        raw = self._network.next_logits(choice.prompt + choice.generated)
        logits = penalised(raw, choice.prompt, choice.generated, params)
        ends = {0} if params.eos_token_id is None else set(params.eos_token_id)
        if params.ignore_eos or len(choice.generated) < (params.min_new_tokens or 0):
            logits[list(ends)] = _NEVER
        greedy = not params.do_sample or params.temperature == 0
        token = int(logits.argmax()) if greedy else int(choice.random.choice(len(logits), p=filtered(logits, params)))
        first, choice.is_first = choice.is_first, False
        prompt_logprobs = self._prompt_logprobs(choice) if first and request.prompt_logprobs is not None else None
        if token in ends:
            return GenerateEvent(id=request.id, index=choice.index, finish="stop", prompt_logprobs=prompt_logprobs)
        choice.generated.append(token)
        longest = min(params.max_new_tokens or self._context, self._context - len(choice.prompt))
        logprobs, top = None, None
        if request.logprobs is not None:
            every = _log_softmax(raw)
            logprobs, top = (float(every[token]),), (_top(every, request.logprobs),)
        return GenerateEvent(
            id=request.id,
            index=choice.index,
            tokens=(token,),
            logprobs=logprobs,
            top_logprobs=top,
            prompt_logprobs=prompt_logprobs,
            finish="length" if len(choice.generated) >= longest else None,
        )

    def _prompt_logprobs(self, choice: _Choice) -> tuple[tuple[TokenLogprob, ...], ...]:
        found = []
        for place in range(1, len(choice.prompt)):
            every = _log_softmax(self._network.next_logits(choice.prompt[:place]))
            chosen = TokenLogprob(choice.prompt[place], float(every[choice.prompt[place] % len(every)]))
            found.append((chosen, *_top(every, choice.request.prompt_logprobs or 0)))
        return tuple(found)


def penalised(raw: np.ndarray, prompt: list[int], generated: list[int], params: Sampling) -> np.ndarray:
    """Logits with bias and penalties applied, as transformers words them."""
    logits = raw.astype(np.float64)
    for token, bias in (params.logit_bias or {}).items():
        logits[token] += bias
    if params.repetition_penalty:
        for token in {token % len(logits) for token in prompt + generated}:
            logits[token] = (
                logits[token] / params.repetition_penalty if logits[token] > 0 else logits[token] * params.repetition_penalty
            )
    for token, count in Counter(generated).items():
        logits[token] -= (params.presence_penalty or 0) + (params.frequency_penalty or 0) * count
    size = params.no_repeat_ngram_size or 0
    text = prompt + generated
    if size and len(text) >= size:
        last = text[len(text) - size + 1 :]
        for place in range(len(text) - size + 1):
            if text[place : place + size - 1] == last:
                logits[text[place + size - 1] % len(logits)] = _NEVER
    return logits


def filtered(logits: np.ndarray, params: Sampling) -> np.ndarray:
    """Probabilities after temperature and filters."""
    logits = logits / (params.temperature or 1.0)
    if params.top_k:
        logits = np.where(logits < np.sort(logits)[-min(params.top_k, len(logits))], _NEVER, logits)
    probabilities = np.exp(_log_softmax(logits))
    order = np.argsort(-probabilities, kind="stable")
    if params.top_p is not None and params.top_p < 1:
        before = np.cumsum(probabilities[order]) - probabilities[order]
        probabilities[order[before >= params.top_p]] = 0
    if params.min_p:
        probabilities[probabilities < params.min_p * probabilities.max()] = 0
    if params.typical_p is not None and params.typical_p < 1:
        with np.errstate(divide="ignore", invalid="ignore"):
            surprise = -np.log(probabilities)
            entropy = float(np.nansum(probabilities * surprise))
        order = np.argsort(np.abs(surprise - entropy), kind="stable")
        before = np.cumsum(probabilities[order]) - probabilities[order]
        probabilities[order[before >= params.typical_p]] = 0
    return np.asarray(probabilities / probabilities.sum())


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max()
    return np.asarray(shifted - np.log(np.exp(shifted).sum()))


def _top(logprobs: np.ndarray, count: int) -> tuple[TokenLogprob, ...]:
    return tuple(TokenLogprob(int(token), float(logprobs[token])) for token in np.argsort(-logprobs, kind="stable")[:count])
