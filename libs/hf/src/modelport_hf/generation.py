"""A request becomes a prompt, the prompt a generation, and its events deltas."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Any

import numpy as np

from modelport.contract import (
    ConfigurationError,
    GenerateEvent,
    GenerateRequest,
    InvalidRequest,
    ModelFailed,
    Run,
    Sampling,
    Session,
    SessionContext,
    TokenLogprob,
    UnsupportedParameter,
)
from modelport.tasks.text import GenerationDelta, GenerationRequest, TextToken
from modelport_hf.chat import load_chat_templates
from modelport_hf.choice import Choice, text_token
from modelport_hf.detokenize import Detokenizer
from modelport_hf.prompt import Prompt, Prompter
from modelport_hf.reasoning import ReasoningSplitter
from modelport_hf.sampling import check, sampling_of
from modelport_hf.stop import StopStrings
from modelport_hf.tokenizer import load_tokenizer
from modelport_hf.tools import FORMATS

__all__ = ["GenerationSession"]


class GenerationSession(Session):
    """Yields deltas for every call: for a plain one, each choice is one delta, given when it ends."""

    def __init__(self, context: SessionContext) -> None:
        super().__init__(context)
        card = context.card
        self.tokenizer = load_tokenizer(context.folder, trust_remote_code=card.trust_remote_code)
        limits = (card.limit, context.limits.max_length if context.limits else None)
        self.limit = min((limit for limit in limits if limit is not None), default=None)
        form = context.options.get("tool_parser", card.options.get("tool_parser"))
        if form is not None and form not in FORMATS:
            raise ConfigurationError(
                f"models.{card.name}.options.tool_parser is {form!r}; it can be {', '.join(FORMATS)}.",
                param=f"models.{card.name}.options.tool_parser",
            )
        self.prompter = self.make_prompter(form)

    def make_prompter(self, tool_parser: str | None) -> Prompter:
        """What makes prompts of requests; a subclass gives one that takes more than text."""
        templates = load_chat_templates(self.context.folder, self.tokenizer.special)
        return Prompter(self.context.card.name, self.tokenizer, templates, self.limit, tool_parser)

    async def handle(self, request: GenerationRequest, run: Run) -> AsyncGenerator[Any, None]:
        """Deltas of all choices, as they come."""
        check(request, self.tokenizer.size)
        prompt: Prompt = await run.cpu(self.prompter, request)
        self._refuse_forced_call(request, prompt)
        generation = run.generate("main", self._asked(request, prompt))
        if request.max_new_tokens == 0 and request.prompt_logprobs is None:
            text = prompt.text if request.echo else ""
            for index in range(request.n):
                generation.stop(index)  # before its first step: the prompt was counted, and nothing is wanted of it
                yield GenerationDelta(index=index, text=text, finish_reason="length")
            return
        choices = self._choices(request, prompt)
        forced = prompt.constraint is not request.constraint
        async for event in _speaking_of_tools(generation) if forced else generation:
            choice = choices[event.index]
            if choice.is_finished:
                continue
            if event.finish == "error":
                raise ModelFailed(event.error or "The model failed while it was generating.")
            if event.prompt_logprobs is not None:
                choice.prompt_tokens = self._prompt_tokens(prompt.ids, event.prompt_logprobs, request.prompt_logprobs or 0)
            choice.push(event if request.max_new_tokens != 0 else _without_tokens(event))
            if choice.is_stopped:
                generation.stop(event.index)
            if (run.stream or choice.is_finished) and (delta := choice.take(event)) is not None:
                yield delta

    def engine_request(self, prompt: Prompt, params: Sampling, **more: Any) -> GenerateRequest:
        """The generation of a prompt; `more` are further fields of it."""
        ids = {"input_ids": np.array(prompt.ids, dtype=np.int64)} if prompt.ids else {}
        return GenerateRequest(id=0, inputs={**ids, **prompt.inputs}, whole=tuple(prompt.inputs), params=params, **more)

    def _asked(self, request: GenerationRequest, prompt: Prompt) -> GenerateRequest:
        return self.engine_request(
            prompt,
            sampling_of(request, max(prompt.max_new_tokens, 1)),
            constraint=prompt.constraint,
            n=request.n,
            logprobs=request.logprobs,
            prompt_logprobs=request.prompt_logprobs,
            adapter=request.adapter,
            cache_salt=request.cache_salt,
        )

    def _choices(self, request: GenerationRequest, prompt: Prompt) -> list[Choice]:
        table = self.tokenizer.table
        markers = (*(prompt.parser.markers if prompt.parser else ()), *(("<think>", "</think>") if prompt.thinks else ()))
        keep = frozenset(token for marker in markers if (token := table.id_of(marker)) is not None)
        return [
            Choice(
                index,
                Detokenizer(self.tokenizer, prompt.ids[-16:], keep),
                StopStrings(request.stop or ()),
                ReasoningSplitter(prompt.text) if prompt.thinks else None,
                prompt.parser(prompt.functions) if prompt.parser else None,
                table if request.logprobs is not None else None,
                prompt.text if request.echo else "",
            )
            for index in range(request.n)
        ]

    def _prompt_tokens(self, ids: list[int], logprobs: Sequence[Sequence[TokenLogprob]], top: int) -> list[TextToken]:
        table = self.tokenizer.table
        tokens = [text_token(table, ids[0], None)]
        for own, reported in zip(ids[1:], logprobs, strict=False):
            logprob = next((entry.logprob for entry in reported if entry.token == own), None)
            token = text_token(table, own, logprob)
            if top:
                best = sorted(reported, key=lambda entry: -entry.logprob)[:top]
                token.top = [text_token(table, entry.token, entry.logprob) for entry in best]
            tokens.append(token)
        return tokens

    def _refuse_forced_call(self, request: GenerationRequest, prompt: Prompt) -> None:
        """The engine would refuse it too, but under a name that the caller did not use."""
        limits = self.context.limits
        if prompt.constraint and not request.constraint and limits and "constraint" not in limits.params:
            raise UnsupportedParameter(
                "tool_choice asks for a certain call, and the backend on which this model runs cannot hold the output to one."
                " Send tool_choice auto, or leave it out: the model then decides for itself whether to call.",
                param="tool_choice",
            )


async def _speaking_of_tools(generation: AsyncIterator[GenerateEvent]) -> AsyncIterator[GenerateEvent]:
    """The events. What is wrong with a constraint that was made of tools is wrong with the tools."""
    try:
        async for event in generation:
            yield event
    except InvalidRequest as error:
        if error.param != "constraint":
            raise
        raise InvalidRequest(f"The parameters of the tools: {error.message}", param="tools") from None


def _without_tokens(event: GenerateEvent) -> GenerateEvent:
    """The event of a request for no tokens at all: the engine makes one, which is not part of the answer."""
    return GenerateEvent(id=event.id, index=event.index, finish="length")
