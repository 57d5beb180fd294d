"""A skill that generates text with a `TinyNetwork`: stop strings, tool calls and several choices, streamed or whole."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path

import numpy as np

from modelport.contract.card import ModelCard
from modelport.contract.errors import InvalidRequest
from modelport.contract.generate import GenerateRequest, Sampling
from modelport.contract.program import Generate, Program
from modelport.contract.session import Run, Session, SessionContext
from modelport.contract.skill import Claim, Skill
from modelport.tasks.text import TEXT_GENERATION, GenerationDelta, GenerationRequest, ToolCallDelta

__all__ = ["Chat"]

_OPEN, _CLOSE = "<tool>", "</tool>"


class _Reader:
    """The text of one choice, as it may be told: held back while it may still become a stop string or a tool call."""

    def __init__(self, stops: list[str], has_tools: bool) -> None:
        self._stops, self._marks = stops, stops + ([_OPEN] if has_tools else [])
        self._held = ""
        self._tool: str | None = None
        self._tools = 0
        self.stopped_by: str | None = None

    def feed(self, piece: str) -> tuple[str, list[ToolCallDelta]]:
        """Text and tool calls that are certain now."""
        self._held += piece
        text = ""
        calls: list[ToolCallDelta] = []
        while self.stopped_by is None:
            if self._tool is not None:
                before, found, after = self._held.partition(_CLOSE)
                if not found:
                    return text, calls
                call = json.loads(before)
                arguments = json.dumps(call["arguments"])
                calls.append(ToolCallDelta(index=self._tools, id=f"call-{self._tools}", name=call["name"], arguments=arguments))
                self._tools, self._tool, self._held = self._tools + 1, None, after
                continue
            place, mark = min(((self._held.find(m), m) for m in self._marks if m in self._held), default=(-1, ""))
            if place < 0:
                keep = max((n for m in self._marks for n in range(1, len(m)) if self._held.endswith(m[:n])), default=0)
                cut = len(self._held) - keep
                text, self._held = text + self._held[:cut], self._held[cut:]
                return text, calls
            text += self._held[:place]
            self._held = self._held[place + len(mark) :]
            if mark in self._stops:
                self.stopped_by = mark
            else:
                self._tool = ""
        return text, calls

    def rest(self) -> str:
        """What was held back in vain."""
        return "" if self._tool is not None or self.stopped_by is not None else self._held


class ChatSession(Session):
    """Its tokenizer is the checkpoint's list of pieces: the longest that fits, from the left."""

    def __init__(self, context: SessionContext) -> None:
        super().__init__(context)
        config = json.loads((Path(context.folder) / "config.json").read_text(encoding="utf-8"))
        self._pieces: list[str] = config["pieces"]

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`."""
        ids = []
        while text:
            fits = [index for index, piece in enumerate(self._pieces) if index and text.startswith(piece)]
            if not fits:
                raise InvalidRequest(f"no token begins {text[:10]!r}", param="prompt")
            best = max(fits, key=lambda index: len(self._pieces[index]))
            ids.append(best)
            text = text[len(self._pieces[best]) :]
        return ids

    async def handle(self, request: GenerationRequest, run: Run) -> AsyncGenerator[GenerationDelta, None]:
        if not request.prompt:
            raise InvalidRequest("prompt must be a text or token ids", param="prompt")
        ids = await run.cpu(self.encode, request.prompt) if isinstance(request.prompt, str) else request.prompt
        params = Sampling(
            max_new_tokens=request.max_new_tokens,
            do_sample=request.do_sample,
            temperature=request.temperature,
            seed=request.seed,
            logit_bias=request.logit_bias,
        )
        inputs = {"input_ids": np.asarray(ids, np.int64)}
        generation = run.generate("main", GenerateRequest(id=0, inputs=inputs, params=params, n=request.n))
        readers = [_Reader(request.stop or [], bool(request.tools)) for _ in range(request.n)]
        has_called = [False] * request.n
        async for event in generation:
            reader = readers[event.index]
            text, calls = reader.feed("".join(self._pieces[token] for token in event.tokens))
            has_called[event.index] |= bool(calls)
            if reader.stopped_by is not None:
                generation.stop(event.index)
                yield GenerationDelta(
                    index=event.index, text=text, tool_calls=calls or None, finish_reason="stop", stop_sequence=reader.stopped_by
                )
                continue
            if event.finish is not None:
                text += reader.rest()
            reason = "tool_calls" if event.finish == "stop" and has_called[event.index] else event.finish
            if text or calls or reason:
                yield GenerationDelta(index=event.index, text=text, tool_calls=calls or None, finish_reason=reason)


class Chat(Skill):
    """An autoregressive model's shape."""

    name = "fake-chat"
    tasks = (TEXT_GENERATION,)

    def claim(self, card: ModelCard) -> Claim | None:
        return Claim((TEXT_GENERATION.name,), 20, "it has pieces") if card.config.get("pieces") else None

    def programs(self, card: ModelCard) -> Mapping[str, Program]:
        return {TEXT_GENERATION.name: Program({"main": Generate()})}

    def session(self, context: SessionContext) -> Session:
        return ChatSession(context)
