"""Forwards that torch compiles: made when a model is loaded, compared with the model as it is, and kept if they pay."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import msgspec
import numpy as np
import torch

from modelport.contract.array import to_numpy
from modelport.contract.backend import Progress
from modelport.contract.errors import ConfigurationError
from modelport.contract.program import Module
from modelport_torch.agreement import Answers, agree, made_up_inputs
from modelport_torch.choice import Choice, Plan, bucket, decide
from modelport_torch.forward import ForwardEntry
from modelport_torch.memory import is_out_of_memory

__all__ = ["CompiledCall", "Outcome", "compile_forwards", "seconds"]

_TRIALS = ((1, 24), (6, 96))  # a request alone, and a crowd; neither is as long as the shape that it is padded to
_ROUNDS = 5
_UNTIL_REPLAYED = 3  # torch runs a shape once, records it at the second call, and replays it from the third on

Batch = dict[str, np.ndarray]


class Outcome(msgspec.Struct, frozen=True):
    """What became of compiling: a sentence for the placement record, and the shapes that batches must have from now on."""

    fact: str
    shapes: tuple[tuple[int, int], ...] | None = None


class CompiledCall:
    """A model's method, compiled. What it was not warmed up for runs as it is: no request ever waits for a compiler.

    Args:
        call: The method.
        graphs: Whether to replay graphs. Each replay overwrites what the one before returned.
    """

    def __init__(self, call: Callable[..., Any], *, graphs: bool) -> None:
        self.graphs = graphs
        self._call = call
        self._compiled = torch.compile(call, dynamic=True, mode="reduce-overhead" if graphs else "default")
        self._known: set[Any] = set()
        self._is_warming = False

    def __call__(self, **arguments: Any) -> Any:
        if self._is_warming:
            self._known.add(_shapes(arguments))
            return self._run(arguments)
        if self.graphs and _shapes(arguments) not in self._known:
            return self._call(**arguments)  # a new graph would take memory for ever
        with torch.compiler.set_stance("eager_on_recompile"):
            return self._run(arguments)

    @contextmanager
    def warming(self) -> Iterator[None]:
        """While it is open, calls compile and record. More forms than torch keeps of one method are an error here."""
        self._is_warming = True
        try:
            with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True):
                yield
        finally:
            self._is_warming = False

    def _run(self, arguments: dict[str, Any]) -> Any:
        if self.graphs:
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        return self._compiled(**arguments)


def compile_forwards(
    wanted: Choice,
    planned: Plan,
    forwards: Mapping[str, ForwardEntry],
    device: torch.device,
    most: tuple[int, int | None],
    progress: Progress,
) -> Outcome:
    """Compiles all forwards of a program, or leaves all as they are.

    Args:
        forwards: By entry. What is kept is their `compiled`.
        most: Rows and tokens of a sequence that may come.
        progress: Told of each shape.

    Raises:
        ConfigurationError: under `on`, if compiling fails, or the answers are others.
        OutOfMemory: under `on`, as torch has it, if a shape does not fit.
    """
    if why := next((said for name in forwards if (said := _why_not(forwards[name]))), None):
        return Outcome(f"not compiled: {why}")
    shapes = [(min(rows, most[0]), min(length, most[1] or length)) for rows, length in _TRIALS]
    batches = {name: [_made_up(forward, shape) for shape in shapes] for name, forward in forwards.items()}
    before, plain_s = _answers(forwards, batches), _seconds(forwards, batches, device)
    if planned.pads:
        to = [bucket(planned.shapes, *shape) for shape in shapes]
        padded = {name: list(map(partial(_padded, forwards[name]), batches[name], to)) for name in forwards}
        passed, finding = agree(before, _answers(forwards, padded, like=before))
        if passed:
            batches = padded
        else:
            planned = Plan(without_graphs=f"padding changes the answers ({finding})")
    skipped = _skipped()
    try:
        for name, forward in forwards.items():
            _compile(forward, planned, batches[name], progress)
        passed, finding = agree(before, _answers(forwards, batches, like=before))
    except Exception as error:
        if is_out_of_memory(error) and wanted == "on":
            raise
        passed, finding = False, f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    if not passed and wanted == "on":
        raise ConfigurationError(
            f"the model cannot be compiled ({finding}); compile = 'auto' would serve it as it is.", param="compile"
        )
    keep, times = decide(wanted, plain_s, _seconds(forwards, batches, device)) if passed else (False, "")
    if not keep:
        for forward in forwards.values():
            forward.compiled = None
        return Outcome(f"not compiled, it would not pay: {times}" if passed else f"not compiled, it was tried: {finding}")
    how = f"graphs of {len(planned.shapes)} shapes" if planned.graphs else f"without graphs, for {planned.without_graphs}"
    if planned.graphs and _skipped() > skipped:
        how = "partly without graphs, which torch's log gives the reason of"
    return Outcome(f"compiled, {how}: {times}, {finding}", planned.shapes if planned.pads else None)


def _compile(forward: ForwardEntry, planned: Plan, batches: Sequence[Batch], progress: Progress) -> None:
    """Compiles one forward, for what is planned and for `batches`."""
    forward.compiled = CompiledCall(forward.call, graphs=planned.graphs)
    # The largest first: the others find room in what it leaves.
    warm = [*(_made_up(forward, shape) for shape in reversed(planned.shapes)), *batches]
    with forward.compiled.warming():
        for index, batch in enumerate(warm):
            progress(f"compiling {forward.name}, shape {index + 1} of {len(warm)}", 0.9)
            for _ in range(_UNTIL_REPLAYED if planned.graphs else 1):
                forward(batch)


def seconds(run: Callable[[], object], device: torch.device) -> float:
    """How long `run` takes on a device that is warm: the median of some rounds."""
    times = []
    for _ in range(_ROUNDS):
        _finish(device)
        start = time.perf_counter()
        run()
        _finish(device)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def _skipped() -> int:
    """How often torch compiled something and made no graph of it."""
    return int(torch._dynamo.utils.counters["inductor"]["cudagraph_skips"])


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _seconds(forwards: Mapping[str, ForwardEntry], batches: Mapping[str, Sequence[Batch]], device: torch.device) -> float:
    return sum(seconds(partial(forwards[name], batch), device) for name in forwards for batch in batches[name])


def _answers(
    forwards: Mapping[str, ForwardEntry], batches: Mapping[str, Sequence[Batch]], like: Answers | None = None
) -> Answers:
    """Outputs of all batches, each cut to the size of that in `like`: what lies beyond is padding."""
    answers = Answers()
    for name, forward in forwards.items():
        for index, batch in enumerate(batches[name]):
            for output, value in forward(batch).items():
                key, array = f"{name}.{output}.{index}", to_numpy(value)
                if array.dtype.kind == "f":
                    sizes = array.shape if like is None else like.outputs[key].shape
                    answers.outputs[key] = array[tuple(slice(size) for size in sizes)].copy()
    return answers


def _why_not(forward: ForwardEntry) -> str | None:
    if isinstance(forward.spec, Module) and not forward.spec.traceable:
        return f"entry {forward.name!r} does as its inputs say, which a compiler would take for constant"
    return f"no input could be made up for entry {forward.name!r}" if _made_up(forward, _TRIALS[0]) is None else None


def _made_up(forward: ForwardEntry, shape: tuple[int, int]) -> Any:
    return made_up_inputs(forward.spec, forward.vocabulary, shape)


def _padded(forward: ForwardEntry, batch: Batch, shape: tuple[int, int]) -> Batch:
    """`batch` as a session would have padded it."""
    sizes = {"batch": shape[0], "sequence": shape[1]}
    out = {}
    for spec in forward.spec.inputs:
        value = batch[spec.name]
        grown = [(0, sizes.get(str(axis), size) - size) for axis, size in zip(spec.axes, value.shape, strict=True)]
        pad = forward.pad_token if spec.pad is None else spec.pad
        out[spec.name] = np.pad(value, grown, constant_values=pad)
    return out


def _shapes(arguments: Mapping[str, Any]) -> Any:
    """What tells one graph from another."""
    return tuple(
        (name, tuple(value.shape) if isinstance(value, torch.Tensor) else tuple(tuple(part.shape) for part in value))
        for name, value in sorted(arguments.items())
        if isinstance(value, torch.Tensor | list)
    )
