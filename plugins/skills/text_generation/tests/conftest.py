"""A checkpoint on disk, and a run whose engine says what a test tells it to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from modelport.contract import GenerateEvent, GenerateRequest, Limits, ModelCard, SessionContext
from modelport.tasks.text import TEXT_GENERATION, GenerationDelta, GenerationRequest, GenerationResult
from modelport.testing.checkpoints import CHAT_TEMPLATE, write_byte_tokenizer
from modelport_hf.generation import GenerationSession
from modelport_skill_text_generation import TextGeneration

ALL_PARAMS = frozenset({"logprobs", "prompt_logprobs", "constraint", "adapter", "n"})


class ScriptedGeneration:
    """Events in the order given, without those of choices that were stopped; an exception among them is raised."""

    def __init__(self, events: Sequence[GenerateEvent | Exception]) -> None:
        self._events = list(events)
        self.stopped: list[int] = []

    def __aiter__(self) -> AsyncIterator[GenerateEvent]:
        return self

    async def __anext__(self) -> GenerateEvent:
        await asyncio.sleep(0)
        while self._events:
            event = self._events.pop(0)
            if isinstance(event, Exception):
                raise event
            if event.index not in self.stopped:
                return event
        raise StopAsyncIteration

    def stop(self, index: int) -> None:
        self.stopped.append(index)


class ScriptedRun:
    """A `Run` that answers every generation with one script."""

    task = "text-generation"
    deadline = None
    priority = 0

    def __init__(self, events: Sequence[GenerateEvent | Exception], stream: bool) -> None:
        self._events = events
        self.stream = stream
        self.requests: list[GenerateRequest] = []
        self.generation: ScriptedGeneration | None = None

    def forward(self, entry: str, item: Any, cache_key: str | None = None) -> Any:
        raise AssertionError("text generation has no forward")

    def generate(self, entry: str, request: GenerateRequest) -> ScriptedGeneration:
        assert entry == "main"
        self.requests.append(request)
        self.generation = ScriptedGeneration(self._events)
        return self.generation

    async def cpu(self, function: Callable[..., Any], *args: Any) -> Any:
        return function(*args)


class Bench:
    """A session on a byte-level checkpoint, and short ways to ask it."""

    def __init__(self, folder: Path, template: str | None = CHAT_TEMPLATE, limit: int | None = 512, **card: Any) -> None:
        write_byte_tokenizer(folder, chat_template=template)
        self.card = ModelCard(
            name="m",
            path=str(folder),
            architectures=("LlamaForCausalLM",),
            files=("tokenizer.json",),
            context_length=limit,
            **card,
        )
        program = TextGeneration().programs(self.card)["text-generation"]
        self.params = ALL_PARAMS
        self.context = SessionContext(
            card=self.card,
            task="text-generation",
            tasks=("text-generation",),
            program=program,
            limits=Limits(params=ALL_PARAMS),
            checkpoints={"main": folder},
        )
        self.session = GenerationSession(self.context)

    def ids(self, text: str) -> list[int]:
        return self.session.tokenizer.encode(text, special=False).ids

    def script(self, text: str, index: int = 0, finish: Any = "stop", size: int = 1, **first: Any) -> list[GenerateEvent]:
        """Events that say `text`, `size` tokens each, then end."""
        ids = self.ids(text)
        steps = [tuple(ids[at : at + size]) for at in range(0, len(ids), size)]
        events = [GenerateEvent(id=1, index=index, tokens=step) for step in steps]
        return [*events, GenerateEvent(id=1, index=index, finish=finish)]

    async def deltas(
        self, request: GenerationRequest, events: Sequence[GenerateEvent | Exception], stream: bool = True
    ) -> tuple[list[GenerationDelta], ScriptedRun]:
        run = ScriptedRun(events, stream)
        return [delta async for delta in self.session.handle(request, run)], run

    async def answer(self, request: GenerationRequest, events: Sequence[GenerateEvent]) -> GenerationResult:
        """The plain answer, which must be what the stream adds up to."""
        plain, _ = await self.deltas(request, events, stream=False)
        streamed, _ = await self.deltas(request, events)
        joined = _without_ids(TEXT_GENERATION.join(plain)), _without_ids(TEXT_GENERATION.join(streamed))  # type: ignore[misc]
        assert joined[0] == joined[1]
        assert len(plain) == request.n
        return joined[0]


def _without_ids(result: GenerationResult) -> GenerationResult:
    """Ids of calls are random."""
    for choice in result.choices:
        for call in choice.tool_calls or ():
            assert call.id
            call.id = "id"
    return result


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "m")


@pytest.fixture
def make_bench(tmp_path: Path) -> Callable[..., Bench]:
    return lambda **options: Bench(tmp_path / "other", **options)
