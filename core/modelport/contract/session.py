"""A skill at work on one loaded model, inside a worker.

Most skills write three plain functions and inherit the rest::

    class Shout(Session):
        def preprocess(self, request):
            return [Item({"input_ids": self.tokenize(text)}) for text in request.inputs]

        def postprocess(self, request, outputs):
            return ShoutResult([to_numpy(output["scores"]) for output in outputs])

What does not fit overrides `handle`, an asynchronous generator that yields deltas, if the task streams, or one result.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import msgspec
import numpy as np

from modelport.contract.array import Array
from modelport.contract.card import ModelCard
from modelport.contract.generate import GenerateEvent, GenerateRequest
from modelport.contract.program import ArraySpec, Generate, Program
from modelport.contract.runner import Limits

__all__ = ["Generation", "Item", "Run", "Session", "SessionContext", "pad_and_stack"]

T = TypeVar("T")


class Item(msgspec.Struct, kw_only=False):
    """One unit of a batch: arrays without the batch axis, and what it costs.

    `cost` is in tokens (or whatever unit the model's length has); it fills the token budget, groups items by length and is
    counted as prompt tokens. 0 means: the first axis of the first array. Items share a batch only if their `group` is equal: for
    arrays that may not be padded (images of different sizes), it names their shapes.
    """

    arrays: dict[str, Array]
    cost: int = 0
    group: str = ""

    def __post_init__(self) -> None:
        if self.cost <= 0:
            shape = next(iter(self.arrays.values())).shape if self.arrays else ()
            self.cost = int(shape[0]) if shape else 1


class Generation(Protocol):
    """A running generation: an asynchronous iterator of its events, and a way to end a choice early."""

    def __aiter__(self) -> AsyncIterator[GenerateEvent]: ...

    async def __anext__(self) -> GenerateEvent: ...

    def stop(self, index: int) -> None:
        """Ends choice `index` (a stop string matched); it takes effect at the next step and no further event of it comes.

        When every choice has ended or been stopped, iteration ends.
        """


class Run(Protocol):
    """All that a session can do. Every call is queued, batched with those of other requests, cancelled with its request
    and counted (`Item.cost` and prompt ids as prompt tokens, events' tokens as completion tokens)."""

    @property
    def task(self) -> str:
        """The name of the task that was asked for."""

    @property
    def stream(self) -> bool:
        """Whether the caller wants deltas; a session yields one result if not."""

    @property
    def deadline(self) -> float | None:
        """`time.monotonic()` of this process at which the request ends, or None."""

    @property
    def priority(self) -> int:
        """Higher is sooner."""

    def forward(self, entry: str, item: Item, cache_key: str | None = None) -> Awaitable[dict[str, Array]]:
        """One item through `entry`: its outputs, without the batch axis.

        Starts at once and may be awaited later, so several are gathered into one batch. `cache_key` keeps the output in a
        byte-bounded cache of the worker and answers from it.
        """

    def generate(self, entry: str, request: GenerateRequest) -> Generation:
        """Starts `request`; its `id`, `deadline` and `priority` are filled in by the worker.

        Raises:
            UnsupportedParameter: if the engine does not honour all it needs.
        """

    def cpu(self, function: Callable[..., T], *args: Any) -> Awaitable[T]:
        """`function(*args)` on the worker's CPU pool."""


class SessionContext(msgspec.Struct, frozen=True, kw_only=True):
    """What a session is given when its model has been loaded.

    `limits` are the runner's, or None for a skill without a program. `checkpoints` are local folders, `main` among them.
    """

    card: ModelCard
    task: str
    tasks: tuple[str, ...]
    program: Program | None = None
    limits: Limits | None = None
    checkpoints: dict[str, Path] = {}
    options: dict[str, Any] = {}

    @property
    def folder(self) -> Path:
        """The main checkpoint's folder."""
        return self.checkpoints["main"]


class Session:
    """The base of every session. One lives per deployment; it is created on the CPU pool when the model is loaded, and its plain
    methods are called there, several at once: they must not change shared state without a lock."""

    pads: Mapping[str, int | float] = {}
    """The value that pads each input whose spec says `pad=None`."""

    def __init__(self, context: SessionContext) -> None:
        self.context = context

    def handle(self, request: Any, run: Run) -> AsyncGenerator[Any, None]:
        """Answers one request: yields its deltas (if `run.stream`), or exactly one result.

        The default: `preprocess`, `forward` of all items through the entry `main`, `postprocess`; for a skill without a
        program, `predict`.
        """
        return self._default_handle(request, run)

    async def _default_handle(self, request: Any, run: Run) -> AsyncGenerator[Any, None]:
        if self.context.program is None:
            yield (await run.cpu(self.predict, [request]))[0]
            return
        items = await run.cpu(self.preprocess, request)
        outputs = await asyncio.gather(*(run.forward("main", item) for item in items))
        yield await run.cpu(self.postprocess, request, outputs)

    def preprocess(self, request: Any) -> list[Item]:
        """One to k items of a request. Bad input raises `InvalidRequest`, naming the field."""
        raise NotImplementedError(f"{type(self).__name__} has neither preprocess nor handle")

    def postprocess(self, request: Any, outputs: list[dict[str, Array]]) -> Any:
        """The result of a request from the outputs of its items, in their order."""
        raise NotImplementedError(f"{type(self).__name__} has neither postprocess nor handle")

    def predict(self, requests: list[Any]) -> list[Any]:
        """Results in the order of the requests: all that a skill without a program implements."""
        raise NotImplementedError(f"{type(self).__name__} has neither a program nor predict")

    def collate(self, entry: str, items: Sequence[Item], shape: tuple[int, int] | None) -> dict[str, Array]:
        """One batch of `items`, padded by the entry's specs; `shape` is the (items, length) to pad to, if fixed."""
        assert self.context.program is not None
        spec = self.context.program.entries[entry]
        specs = spec.inputs
        if isinstance(spec, Generate):
            raise TypeError(f"entry {entry!r} generates; it has no batches")
        return pad_and_stack(specs, items, shape, self.pads)

    def split(self, entry: str, outputs: Mapping[str, Array], items: Sequence[Item]) -> list[dict[str, Array]]:
        """The outputs of each item: row i of every array. Padded rows are dropped."""
        # With the ellipsis a row of one number is still an array.
        return [{name: array[i, ...] for name, array in outputs.items()} for i in range(len(items))]

    def close(self) -> None:
        """Called once when the model is unloaded."""


def pad_and_stack(
    specs: Sequence[ArraySpec],
    items: Sequence[Item],
    shape: tuple[int, int] | None = None,
    pads: Mapping[str, int | float] | None = None,
) -> dict[str, Array]:
    """Stacks items along a new first axis, padding named axes to one length on the right.

    Inputs that no item has are left out; an item that lacks an input which others have is an error. Axes that are called
    `sequence` are padded to `shape[1]` and rows to `shape[0]`, if a shape is given.

    Raises:
        ValueError: if an item does not fit `shape`, or lacks an input.
    """
    lengths: dict[str, int] = {"sequence": shape[1]} if shape else {}
    present = [spec for spec in specs if any(spec.name in item.arrays for item in items)]
    for spec in present:
        for item in items:
            if spec.name not in item.arrays:
                raise ValueError(f"an item lacks the input {spec.name!r} that others of its batch have")
            for axis, size in zip(spec.axes[1:], item.arrays[spec.name].shape, strict=True):
                if isinstance(axis, int) or (shape and axis == "sequence"):
                    limit = axis if isinstance(axis, int) else lengths[axis]
                    if size > limit:
                        raise ValueError(f"{spec.name}: {size} does not fit the {axis} axis of {limit}")
                else:
                    lengths[axis] = max(lengths.get(axis, 0), size)
    rows = shape[0] if shape else len(items)
    batch: dict[str, Array] = {}
    for spec in present:
        values = [item.arrays[spec.name] for item in items]
        if not all(isinstance(value, np.ndarray) for value in values):
            if rows != 1 or len(values) != 1:
                raise ValueError(f"{spec.name} is a handle to device memory: such items run one at a time")
            batch[spec.name] = values[0][None]
            continue
        sizes = [axis if isinstance(axis, int) else lengths[axis] for axis in spec.axes[1:]]
        pad = spec.pad if spec.pad is not None else (pads or {}).get(spec.name, 0)
        out = np.full((rows, *sizes), pad, dtype=np.dtype(spec.dtype))
        for row, value in enumerate(values):
            out[row, ...][tuple(slice(0, n) for n in value.shape)] = value
        batch[spec.name] = out
    return batch
