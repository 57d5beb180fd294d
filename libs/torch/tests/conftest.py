"""Tiny checkpoints, and a torch backend on the host that is no plugin: what this library's tests stand on."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from modelport.contract import (
    Device,
    Forward,
    Generate,
    GenerateEvent,
    GenerateRequest,
    LoadContext,
    ModelCard,
    Probe,
    Program,
    Sampling,
)
from modelport.testing import checkpoints
from modelport_torch.backend import TorchBackend

DEVICE = Device(
    backend="host", name="a host", memory_total_bytes=8 << 30, memory_free_bytes=4 << 30, dtypes=("float32", "bfloat16")
)


class HostBackend(TorchBackend):
    """The smallest torch backend."""

    name = "host"
    rank = 100
    prefill_tokens = 128

    def probe(self) -> Probe:
        return Probe(devices=(DEVICE,))

    def torch_device(self, device: Device) -> torch.device:
        return torch.device("cpu")

    def free_bytes(self, device: Device) -> int:
        return 256 << 20


class Crowd:
    """Steps an engine and keeps what came out, by (request, choice)."""

    def __init__(self, engine: Any) -> None:
        self.engine = engine
        self.tokens: dict[tuple[int, int], list[int]] = {}
        self.finish: dict[tuple[int, int], str] = {}
        self.events: list[GenerateEvent] = []

    def add(self, id: int, prompt: Any, *, n: int = 1, **rest: Any) -> None:
        fields = {
            name: rest.pop(name) for name in ("logprobs", "prompt_logprobs", "priority", "deadline", "constraint") if name in rest
        }
        request = GenerateRequest(id=id, inputs={"input_ids": np.asarray(prompt)}, params=Sampling(**rest), n=n, **fields)
        self.engine.add(request)

    def step(self) -> list[GenerateEvent]:
        events = self.engine.step()
        for event in events:
            key = event.id, event.index
            self.tokens.setdefault(key, []).extend(event.tokens)
            if event.finish:
                assert key not in self.finish, "a choice ends once"
                self.finish[key] = event.finish
        self.events += events
        return events

    def drain(self, steps: int = 2000) -> Crowd:
        for _ in range(steps):
            if not (self.engine.load().running or self.engine.load().waiting):
                return self
            self.step()
        raise AssertionError("the engine never became idle")


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`tiny("llama")` is the folder of a tiny checkpoint, made once."""
    root = tmp_path_factory.mktemp("tiny")
    made: dict[str, Path] = {}

    def make(kind: str) -> Path:
        if kind not in made:
            made[kind] = getattr(checkpoints, f"tiny_{kind}")(root / kind)
        return made[kind]

    return make


def card_of(folder: Path, **rest: Any) -> ModelCard:
    config = json.loads((folder / "config.json").read_text())
    given = {
        "name": folder.name,
        "path": str(folder),
        "model_type": config["model_type"],
        "config": config,
        "dtype": config.get("dtype", "float32"),
        "context_length": config.get("max_position_embeddings", config.get("n_positions")),
        "files": tuple(sorted(path.name for path in folder.iterdir())),
        "weight_bytes": (folder / "model.safetensors").stat().st_size,
    }
    return ModelCard(**(given | rest))


@pytest.fixture
def card() -> Callable[..., ModelCard]:
    return card_of


@pytest.fixture
def backend() -> HostBackend:
    return HostBackend()


@pytest.fixture
def device() -> Device:
    return DEVICE


def runners(backend: TorchBackend) -> Iterator[Callable[..., Any]]:
    """What makes runners, and closes them all when it goes on."""
    made: list[Any] = []

    def make(folder: Path, entries: Any, progress: Any = lambda what, fraction: None, **rest: Any) -> Any:
        program = entries if isinstance(entries, Program) else Program({"main": entries})
        further = {name: Path(source) for name, source in program.checkpoints.items()}
        context = LoadContext(
            card=card_of(folder), program=program, checkpoints={"main": folder} | further, devices=(DEVICE,), **rest
        )
        made.append(backend.load(context, progress))
        return made[-1]

    yield make
    for runner in made:
        runner.close()


@pytest.fixture
def load(backend: HostBackend) -> Iterator[Callable[..., Any]]:
    """`load(folder, program, …)` is a runner, closed when the test ends."""
    yield from runners(backend)


@pytest.fixture(scope="module")
def load_once() -> Iterator[Callable[..., Any]]:
    """The same for all tests of a module."""
    yield from runners(HostBackend())


@pytest.fixture
def crowd(load: Callable[..., Any]) -> Callable[..., Crowd]:
    """`crowd(folder)` is an engine, over a causal language model unless told otherwise, with somewhere to put its events."""
    return lambda folder, entry=Generate(), **rest: Crowd(load(folder, entry, **rest).engine("main"))


@pytest.fixture(scope="session")
def crowd_over() -> type[Crowd]:
    """`crowd_over(engine)` has somewhere to put the events of an engine."""
    return Crowd


@pytest.fixture(scope="session")
def forward_of() -> Callable[..., Forward]:
    from modelport.contract import ArraySpec

    def make(head: str, *outputs: Any, names: tuple[str, ...] = ("input_ids", "attention_mask"), **rest: Any) -> Forward:
        return Forward(head=head, inputs=tuple(ArraySpec(name) for name in names), outputs=tuple(outputs), **rest)

    return make
