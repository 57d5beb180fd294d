"""Steps as graphs, on a recorder that needs no chip: a tape of torch's own operations, on the very tensors of the recording.

A replay of the tape runs no line of Python of the model or the engine, as that of a CUDA graph does not: whatever the host had
decided from a content stays decided, and whatever lies elsewhere meanwhile is not found. Asking for a content fails, as it does
while CUDA records.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from modelport.contract import ConfigurationError, Generate
from modelport_torch.engine import graphs, trial
from modelport_torch.engine.graphs import StepGraphs, recorder_of, step_shape


class Tape(TorchDispatchMode):
    """All operations of a computation, in order."""

    def __init__(self) -> None:
        super().__init__()
        self._ops: list[tuple[Any, Any, Any, list[torch.Tensor]]] = []
        self.output = torch.empty(0)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func._schema.name in ("aten::_local_scalar_dense", "aten::nonzero", "aten::equal"):
            raise RuntimeError(f"operation not permitted while recording: {func}")
        made = func(*args, **(kwargs or {}))
        given = {t.untyped_storage().data_ptr() for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)}
        # What lies in memory of an argument is a view of it, or was written in place: both come about by themselves.
        fresh = [
            t if isinstance(t, torch.Tensor) and t.untyped_storage().data_ptr() not in given else None for t in tree_leaves(made)
        ]
        self._ops.append((func, args, kwargs or {}, fresh))
        return made

    def replay(self) -> None:
        """Everything once more, each result to where it was the first time."""
        for func, args, kwargs, fresh in self._ops:
            for new, old in zip(tree_leaves(func(*args, **kwargs)), fresh, strict=True):
                if old is not None:
                    old.copy_(new)


class Recorder:
    """Makes tapes, and counts them."""

    made = 0

    def record(self, run: Callable[[], torch.Tensor]) -> Tape:
        type(self).made += 1
        run()
        with Tape() as tape:
            tape.output = run()
        return tape


@pytest.fixture
def taped(monkeypatch: pytest.MonkeyPatch) -> type[Recorder]:
    """The host has graphs, and they pay."""
    monkeypatch.setattr(Recorder, "made", 0)
    monkeypatch.setattr(trial, "recorder_of", lambda device: Recorder)
    return Recorder


ON = {"compile": "on", "prefill_tokens": 24}
LONG = [7 + index % 90 for index in range(60)]


def generated(crowd: Any) -> dict[tuple[int, int], list[int]]:
    """Crowds that grow, shrink, join in pieces, outgrow the cache's first block, and go on from what is kept."""
    crowd.add(1, [9, 8, 7], max_new_tokens=90, ignore_eos=True)
    crowd.add(2, [30, 31], max_new_tokens=5, do_sample=True, seed=4, temperature=1.3, ignore_eos=True)
    crowd.step()
    crowd.add(3, [5] * 7, max_new_tokens=9, do_sample=True, seed=5, top_p=0.8, top_k=40, n=2, ignore_eos=True)
    crowd.add(4, LONG, max_new_tokens=12, ignore_eos=True)
    crowd.add(5, [5, 6, 5, 6], max_new_tokens=5, repetition_penalty=1.3, no_repeat_ngram_size=2, ignore_eos=True)
    crowd.add(6, [11, 12, 13], max_new_tokens=4, logprobs=3, prompt_logprobs=2, ignore_eos=True)
    crowd.drain()
    crowd.add(7, [*LONG, 50], max_new_tokens=4, ignore_eos=True)
    crowd.drain()
    return dict(crowd.tokens)


@pytest.mark.parametrize("kind", ["llama", "gemma3", "gpt2"])
def test_graphs_generate_the_same_tokens(kind: str, crowd: Any, tiny: Callable[..., Path], taped: type[Recorder]) -> None:
    plain = generated(crowd(tiny(kind), options={"prefill_tokens": 24}))
    before = taped.made
    assert generated(crowd(tiny(kind), options=ON)) == plain
    assert taped.made > before + 3, "several shapes came, each was recorded"


@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_whoever_comes_and_goes_gets_what_it_gets_alone(data: st.DataObject, stepped: Any, plain: Any) -> None:
    prompts = data.draw(st.lists(st.lists(st.integers(3, 90), min_size=1, max_size=30), min_size=1, max_size=6))
    counts = data.draw(st.lists(st.integers(1, 40), min_size=len(prompts), max_size=len(prompts)))
    pauses = data.draw(st.lists(st.integers(0, 6), min_size=len(prompts), max_size=len(prompts)))
    leaves = data.draw(st.sets(st.integers(0, len(prompts) - 1), max_size=2))
    found, alone = stepped(), plain()
    for place, (prompt, count, pause) in enumerate(zip(prompts, counts, pauses, strict=True)):
        found.add(place, prompt, max_new_tokens=count, ignore_eos=True)
        for _ in range(pause):
            found.step()
    for place in leaves:
        found.engine.cancel(place)
    found.drain()
    for place, (prompt, count) in enumerate(zip(prompts, counts, strict=True)):
        alone.add(place, prompt, max_new_tokens=count, ignore_eos=True)
        alone.drain()
        told = found.tokens.get((place, 0), [])
        assert told == alone.tokens[place, 0][: len(told)]
        assert place in leaves or len(told) == count


@pytest.fixture(scope="module")
def stepped(tiny: Callable[..., Path], load_once: Callable[..., Any], crowd_over: Any) -> Callable[[], Any]:
    """A crowd over an engine with graphs, which lives as long as the module: graphs of one example serve the next."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trial, "recorder_of", lambda device: Recorder)
        engine = load_once(tiny("llama"), Generate(), options={"compile": "on", "prefix_tokens": 0}).engine("main")
    return lambda: crowd_over(engine)


@pytest.fixture(scope="module")
def plain(tiny: Callable[..., Path], load_once: Callable[..., Any], crowd_over: Any) -> Callable[[], Any]:
    engine = load_once(tiny("llama"), Generate(), options={"prefix_tokens": 0}).engine("main")
    return lambda: crowd_over(engine)


def test_record_says_how_steps_run(load: Any, tiny: Callable[..., Path], taped: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fact(wanted: str, plain_s: float, graphs_s: float) -> str:
        ways, drive = iter([plain_s, graphs_s]), trial._drive
        monkeypatch.setattr(trial, "_drive", lambda *given: (*[(found := drive(*given))[0], next(ways)], found[2]))
        try:
            return str(load(tiny("llama"), Generate(), options={"compile": wanted}).facts["decode"])
        finally:
            monkeypatch.setattr(trial, "_drive", drive)

    assert fact("auto", 0.004, 0.001) == "graphs: 1.00 ms instead of 4.00"
    assert fact("auto", 0.001, 0.004) == "as it is, graphs would not pay: 4.00 ms instead of 1.00"
    assert fact("on", 0.001, 0.004) == "graphs: 4.00 ms instead of 1.00"
    assert "decode" not in load(tiny("llama"), Generate()).facts


def test_device_without_graphs_says_so(load: Any, tiny: Callable[..., Path]) -> None:
    facts = load(tiny("llama"), Generate(), options={"compile": "on"}).facts
    assert facts["decode"] == "as it is: torch has no graphs on cpu"


def test_static_batches_say_that_they_have_none(load: Any, tiny: Callable[..., Path], taped: Any) -> None:
    facts = load(tiny("llama"), Generate(mode="own"), options={"compile": "on"}).facts
    assert facts["decode"] == "as it is: only the stepped engine has graphs"


def test_step_that_cannot_be_recorded_runs_as_it_is(
    load: Any, crowd: Any, tiny: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Refuses:
        def record(self, run: Any) -> Any:
            raise RuntimeError("operation not permitted when stream is capturing")

    expected = generated(crowd(tiny("llama")))
    monkeypatch.setattr(trial, "recorder_of", lambda device: Refuses)
    runner = load(tiny("llama"), Generate(), options={"compile": "auto"})
    assert runner.facts["decode"].startswith("as it is, graphs were tried: RuntimeError: operation not permitted")
    assert generated(crowd(tiny("llama"), options={"compile": "auto"})) == expected
    with pytest.raises(ConfigurationError, match=r"cannot be graphs \(RuntimeError: operation not permitted"):
        load(tiny("llama"), Generate(), options={"compile": "on"})


def test_recording_that_fails_later_costs_nobody_a_token(
    crowd: Any, tiny: Callable[..., Path], taped: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    expected = generated(crowd(tiny("llama")))
    found = crowd(tiny("llama"), options={"compile": "on"})
    record, left = Recorder.record, iter(range(2))

    def fails(self: Recorder, run: Any) -> Any:
        if next(left, None) is None:
            run()
            raise torch.OutOfMemoryError("out of memory")
        return record(self, run)

    monkeypatch.setattr(Recorder, "record", fails)
    assert generated(found) == expected
    assert "all run as they are from now on: OutOfMemoryError" in caplog.text
    assert len(found.engine.stepped._model.graphs) == 0


def test_graphs_go_when_the_cache_goes(crowd: Any, tiny: Callable[..., Path], taped: Any) -> None:
    found = crowd(tiny("llama"), options={"compile": "on"})
    found.add(1, [5, 6], max_new_tokens=5, ignore_eos=True)
    found.drain()
    steps = found.engine.stepped._model
    assert len(steps.graphs) == 1
    steps.release()
    assert len(steps.graphs) == 0
    found.add(2, [5, 6], max_new_tokens=5, ignore_eos=True)
    found.drain()
    assert found.tokens[2, 0] == found.tokens[1, 0]


def test_tape_replays_contents_and_refuses_to_be_asked_for_them() -> None:
    given = torch.tensor([[3], [1], [2]])
    steps = StepGraphs(torch.device("cpu"), Recorder, lambda inputs, width: inputs.sum(0) * width)
    assert steps.step(given.tolist(), 2, 0).tolist() == [12]  # type: ignore[union-attr]
    assert steps.step([[5], [5], [5]], 2, 0).tolist() == [30]  # type: ignore[union-attr]
    assert len(steps) == 1
    asks = StepGraphs(torch.device("cpu"), Recorder, lambda inputs, width: inputs * int(inputs.max()))
    assert asks.step(given.tolist(), 2, 0) is None
    assert "not permitted while recording" in asks.why_not


def test_number_of_graphs_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "_MOST", 3)
    steps = StepGraphs(torch.device("cpu"), Recorder, lambda inputs, width: inputs + width)
    for width in (1, 2, 3, 4, 5, 1):
        assert steps.step([[1], [1], [1]], width, 0)[0].tolist() == [1 + width]  # type: ignore[index]
        assert 0 < len(steps) <= 3


@given(rows=st.integers(1, 64), width=st.integers(1, 40_000), more=st.tuples(st.integers(0, 64), st.integers(0, 40_000)))
def test_shape_holds_the_step_and_wastes_little(rows: int, width: int, more: tuple[int, int]) -> None:
    cache = rows + more[0], width + more[1]
    count, columns = step_shape(rows, width, cache)
    assert rows <= count <= min(cache[0], 2 * rows - 1 or 1)
    assert width <= columns <= cache[1]
    assert columns <= max(64, width * 3 // 2)


# ------------------------------------------------------------------------------------------------- what records on CUDA


class Stream:
    """Of torch's, as much as is asked for; `events` is what was done on the device's streams, in order."""

    events: ClassVar[list[str]] = []

    def __init__(self, device: Any = None) -> None:
        self.device = device

    def wait_stream(self, other: Stream) -> None:
        self.events.append("wait")


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """torch's interface to a device, which notes what it is asked for. Arguments are held against the real one's."""
    real, events, mode = inspect.signature(torch.cuda.graph), Stream.events, ["default"]

    @contextmanager
    def graph(*args: Any, **options: Any) -> Iterator[None]:
        real.bind(*args, **options)
        events.append("recording")
        yield
        events.append("recorded")

    def strict(wanted: str) -> None:
        mode[0] = wanted
        events.append(wanted)

    events.clear()
    current = Stream()
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: current)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 1))
    monkeypatch.setattr(torch.cuda, "get_sync_debug_mode", lambda: mode[0])
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", strict)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: SimpleNamespace(replay=lambda: events.append("replay")))
    monkeypatch.setattr(torch.cuda, "graph", graph)
    return events


def test_a_step_is_run_under_supervision_and_then_recorded(cuda: list[str]) -> None:
    def run() -> torch.Tensor:
        cuda.append("run")
        return torch.ones(2)

    make = recorder_of(torch.device("cuda", 0))
    assert make is not None
    graph = make().record(run)
    graph.replay()
    assert cuda == ["wait", "error", "run", "default", "wait", "recording", "run", "recorded", "replay"]
    assert graph.output.tolist() == [1, 1]


def test_what_waits_for_the_device_is_found_before_anything_is_recorded(cuda: list[str]) -> None:
    def run() -> torch.Tensor:
        raise RuntimeError("called a synchronizing CUDA operation")

    steps = StepGraphs(torch.device("cpu"), lambda: graphs.CudaRecorder(torch.device("cuda", 0)), lambda inputs, width: run())
    assert steps.step([[1], [1], [1]], 64, 0) is None
    assert steps.why_not == "RuntimeError: called a synchronizing CUDA operation"
    assert cuda == ["wait", "error", "default"]
