"""Compiled forwards on the host, where torch's compiler needs a C++ compiler; what is decided from times needs none."""

from __future__ import annotations

import shutil
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._pytree import tree_map

from modelport.contract import (
    ArraySpec,
    ConfigurationError,
    Forward,
    Generate,
    LoadContext,
    ModelCard,
    Module,
    Normalize,
    Output,
    Pool,
    Program,
)
from modelport.contract.array import to_numpy
from modelport_torch import compiled
from modelport_torch import runner as runners
from modelport_torch.choice import bucket, plan
from modelport_torch.forward import ForwardEntry

BATCH = {"input_ids": np.array([[2, 10, 11, 12, 3], [2, 20, 3, 0, 0]]), "attention_mask": np.array([[1] * 5, [1, 1, 1, 0, 0]])}

HIDDEN = Output("last_hidden_state")
MEAN = Output("mean", source="last_hidden_state", chain=(Pool("mean"), Normalize()))
needs_compiler = pytest.mark.skipif(
    shutil.which("c++") is None, reason="torch compiles for processors with c++, which is missing"
)


@pytest.fixture(scope="module")
def reference(tiny: Callable[..., Path]) -> Any:
    return transformers.AutoModel.from_pretrained(tiny("bert")).eval()


@pytest.fixture(scope="module")
def runner(tiny: Callable[..., Path], forward_of: Any, load_once: Callable[..., Any]) -> Any:
    with torch._inductor.config.patch(compile_threads=1):  # no processes that outlive this one
        return load_once(tiny("bert"), forward_of("feature-extraction", HIDDEN, MEAN), options={"compile": "on"})


@needs_compiler
@settings(max_examples=15, deadline=None)
@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=5), seed=st.integers(0, 99))
def test_compiled_answers_are_those_of_transformers_whatever_the_shape(
    runner: Any, reference: Any, lengths: list[int], seed: int
) -> None:
    draw = np.random.default_rng(seed)
    ids, mask = np.zeros((2, len(lengths), max(lengths)), np.int64)
    for row, length in enumerate(lengths):
        ids[row, :length], mask[row, :length] = draw.integers(1, 90, length), 1
    found = runner.submit("main", {"input_ids": ids, "attention_mask": mask}).result()
    for row, length in enumerate(lengths):
        with torch.no_grad():
            alone = reference(torch.from_numpy(ids[row : row + 1, :length])).last_hidden_state[0]
        np.testing.assert_allclose(found["last_hidden_state"][row, :length], alone, atol=1e-4)
        mean = torch.nn.functional.normalize(alone.mean(0), dim=0)
        np.testing.assert_allclose(found["mean"][row], mean, atol=1e-4)


@needs_compiler
def test_record_says_that_it_is_compiled_and_how_fast(runner: Any) -> None:
    assert runner.facts["compile"].startswith("compiled, without graphs, for torch has none on cpu: ")
    assert " ms instead of " in runner.facts["compile"]
    assert runner.limits.shapes is None


@needs_compiler
def test_compiled_model_runs_none_of_the_models_own_code(runner: Any) -> None:
    entered: list[str] = []
    sys.setprofile(lambda frame, event, _: entered.append(frame.f_code.co_qualname) if event == "call" else None)
    try:
        runner.submit("main", BATCH).result()
    finally:
        sys.setprofile(None)
    assert entered
    assert not [name for name in entered if name.startswith("Bert")]


# --------------------------------------------------------------------------------------- decided without a compiler


class Replays:
    """As graphs do: what a shape gave lies where it lay the first time, and each call overwrites it."""

    def __init__(self, call: Any, *, dynamic: bool, mode: str) -> None:
        self._call, self._graphs = call, mode == "reduce-overhead"
        self.outputs: dict[Any, Any] = {}

    def __call__(self, **arguments: Any) -> Any:
        found = self._call(**arguments)
        if not self._graphs:
            return found
        known = self.outputs.setdefault(str({name: getattr(value, "shape", value) for name, value in arguments.items()}), found)
        tree_map(lambda old, new: old.copy_(new) if isinstance(old, torch.Tensor) else old, known, found)
        return known


@pytest.fixture
def replays(monkeypatch: pytest.MonkeyPatch) -> None:
    """A compiler that leaves models as they are, on a device that would have graphs."""
    monkeypatch.setattr(torch, "compile", Replays)
    monkeypatch.setattr(runners, "plan", lambda entries, device, *rest: plan(entries, "cuda", *rest))


def times(monkeypatch: pytest.MonkeyPatch, plain: float, made: float) -> None:
    """What will be measured: of the model as it is, then of what was compiled, for two batches each."""
    left = iter([plain, plain, made, made])
    monkeypatch.setattr(compiled, "seconds", lambda run, device: next(left) / 2)


def answers(runner: Any, batch: Any = None) -> Any:
    return {name: to_numpy(value) for name, value in runner.submit("main", batch or BATCH).result().items()}


def test_option_that_is_not_known_is_refused_before_anything_is_read(backend: Any, device: Any, tmp_path: Path) -> None:
    program, card = Program({"main": Generate()}), ModelCard(name="m", path=str(tmp_path))

    def context(folder: Path, options: dict[str, Any]) -> LoadContext:
        return LoadContext(card=card, program=program, checkpoints={"main": folder}, devices=(device,), options=options)

    for wrong in ("always", True, 1):
        with pytest.raises(ConfigurationError, match=r"backends\.host\.compile is .*; it must be one of 'off', 'on', 'auto'"):
            backend.load(context(tmp_path / "nowhere", {"compile": wrong}), lambda what, fraction: None)


def test_compiler_that_fails_leaves_the_model_as_it_was_and_the_reason(
    load: Any, tiny: Any, forward_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(call: Any, **options: Any) -> Any:
        raise RuntimeError("no C++ compiler\nwas found")

    plain = answers(load(tiny("bert"), forward_of("feature-extraction", MEAN)))
    monkeypatch.setattr(torch, "compile", fail)
    runner = load(tiny("bert"), forward_of("feature-extraction", MEAN), options={"compile": "auto"})
    assert runner.facts["compile"] == "not compiled, it was tried: RuntimeError: no C++ compiler was found"
    np.testing.assert_array_equal(answers(runner)["mean"], plain["mean"])
    with pytest.raises(
        ConfigurationError, match=r"cannot be compiled \(RuntimeError: no C\+\+ compiler was found\); compile = 'auto'"
    ):
        load(tiny("bert"), forward_of("feature-extraction", MEAN), options={"compile": "on"})


def test_compiled_model_that_answers_otherwise_is_not_used(
    load: Any, tiny: Any, forward_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(call: Any, **options: Any) -> Any:
        return lambda **arguments: {"last_hidden_state": call(**arguments).last_hidden_state.flip(-1)}

    monkeypatch.setattr(torch, "compile", wrong)
    entry = forward_of("feature-extraction", MEAN)
    assert (
        load(tiny("bert"), entry, options={"compile": "auto"}).facts["compile"].startswith("not compiled, it was tried: cosine ")
    )
    with pytest.raises(ConfigurationError, match="cannot be compiled"):
        load(tiny("bert"), entry, options={"compile": "on"})


@pytest.mark.parametrize(
    ("wanted", "made", "fact"),
    [
        ("auto", 0.0050, "not compiled, it would not pay: 5.00 ms instead of 4.00"),
        ("auto", 0.0010, "compiled, graphs of 12 shapes: 1.00 ms instead of 4.00, cosine 1.00000"),
        ("on", 0.0050, "compiled, graphs of 12 shapes: 5.00 ms instead of 4.00, cosine 1.00000"),
    ],
)
@pytest.mark.usefixtures("replays")
def test_times_decide_unless_it_is_asked_for(
    wanted: str, made: float, fact: str, load: Any, tiny: Any, forward_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    times(monkeypatch, 0.0040, made)
    runner = load(tiny("bert"), forward_of("feature-extraction", MEAN), options={"compile": wanted}, max_items=32)
    assert runner.facts["compile"] == fact
    assert (runner.limits.shapes is None) == fact.startswith("not")


@pytest.mark.usefixtures("replays")
def test_graphs_are_made_when_loading_and_never_for_a_request(load: Any, tiny: Any, forward_of: Any) -> None:
    plain = load(tiny("bert"), forward_of("feature-extraction", HIDDEN))
    runner = load(tiny("bert"), forward_of("feature-extraction", HIDDEN), options={"compile": "on"}, max_items=2)
    made = runner._forwards["main"].compiled._compiled.outputs
    assert runner.limits.shapes == ((1, 32), (1, 64), (2, 32), (2, 64))
    assert len(made) == 4
    for rows, length in [(1, 32), (2, 64), (1, 7), (3, 20)]:  # the last two as nobody pads who obeys the limits
        batch = {"input_ids": np.full((rows, length), 5), "attention_mask": np.ones((rows, length), np.int64)}
        np.testing.assert_allclose(
            answers(runner, batch)["last_hidden_state"], answers(plain, batch)["last_hidden_state"], atol=1e-5
        )
    assert len(made) == 4


@pytest.mark.usefixtures("replays")
def test_handle_that_is_kept_outlives_the_next_replay(load: Any, tiny: Any, forward_of: Any) -> None:
    entry = forward_of("feature-extraction", Output("kept", source="last_hidden_state", keep=True))
    runner = load(tiny("bert"), entry, options={"compile": "on"})
    batch = {"input_ids": np.full((1, 32), 5), "attention_mask": np.ones((1, 32), np.int64)}
    first = runner.submit("main", batch).result()["kept"]
    before = first.numpy().copy()
    runner.submit("main", {**batch, "input_ids": np.full((1, 32), 6)}).result()
    np.testing.assert_array_equal(first.numpy(), before)


class SeesPadding(torch.nn.Module):
    """Its answers depend on how long the longest of a batch is."""

    def forward(self, input_ids: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"y": (input_ids != 0).double().mean(-1, keepdim=True) * torch.tensor([1.0, -1.0]) + torch.tensor([0.0, 0.5])}


def module_of(monkeypatch: pytest.MonkeyPatch, kind: type[torch.nn.Module], **rest: Any) -> Module:
    builders = types.ModuleType("compiled_builders")
    builders.make = lambda folder: kind()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, builders.__name__, builders)
    examples = {"input_ids": (2, 8)}
    outputs = (Output("y"),)
    return Module(build=f"{builders.__name__}:make", inputs=(ArraySpec("input_ids"),), outputs=outputs, examples=examples, **rest)


@pytest.mark.usefixtures("replays")
def test_model_that_sees_padding_gets_no_graphs(load: Any, tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ForwardEntry, "vocabulary", 90)
    runner = load(tiny("bert"), module_of(monkeypatch, SeesPadding), options={"compile": "on"})
    assert runner.facts["compile"].startswith("compiled, without graphs, for padding changes the answers (cosine 0.")
    assert runner.limits.shapes is None


@pytest.mark.usefixtures("replays")
def test_module_that_loops_as_its_inputs_say_is_left_alone(load: Any, tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    runner = load(tiny("bert"), module_of(monkeypatch, SeesPadding, traceable=False), options={"compile": "on"})
    assert (
        runner.facts["compile"] == "not compiled: entry 'main' does as its inputs say, which a compiler would take for constant"
    )


# ------------------------------------------------------------------------------------------------------------ plans


def entry(*axes: Any) -> Forward:
    return Forward(head="h", inputs=(ArraySpec("x", axes=("batch", *axes)),), outputs=())


@pytest.mark.parametrize(
    ("entries", "device", "longest", "why"),
    [
        ([entry("sequence")], "mps", 64, "torch has none on mps"),
        ([entry("sequence"), Generate()], "cuda", 64, "the program generates too, and fixed shapes would bind its prompts"),
        ([entry(3, "height", "width")], "cuda", 64, "inputs may have any height"),
        ([entry("sequence"), entry(3, 8, 8)], "cuda", 64, "its entries have no lengths in common"),
        ([entry("sequence")], "cuda", None, "nothing says how long a sequence may be"),
        ([entry("sequence")], "cuda", 32768, "sequences may have 32768 tokens"),
    ],
)
def test_graphs_need_shapes_that_can_be_counted(entries: Any, device: str, longest: int | None, why: str) -> None:
    found = plan(entries, device, 32, longest, 16384)
    assert not found.graphs
    assert not found.shapes
    assert found.without_graphs == why


@given(
    items=st.integers(1, 64), longest=st.integers(1, 8192), tokens=st.integers(64, 32768), rows=st.integers(1, 64), data=st.data()
)
def test_every_batch_that_may_come_has_a_shape_and_there_are_few(
    items: int, longest: int, tokens: int, rows: int, data: st.DataObject
) -> None:
    found = plan([entry("sequence")], "cuda", items, longest, tokens)
    assert found.pads
    assert list(found.shapes) == sorted(set(found.shapes))
    assert len(found.shapes) <= 8 * 9
    assert max(shape[0] for shape in found.shapes) <= items
    assert max(shape[1] for shape in found.shapes) == longest
    length = data.draw(st.integers(1, longest))
    shape = bucket(found.shapes, 1, length)  # one item always fits, so that nothing is refused for its length
    assert shape[0] == 1
    assert shape[1] <= max(2 * length, 32)


def test_images_of_one_size_have_a_graph_for_each_small_batch() -> None:
    found = plan([entry(3, 224, 224)], "cuda", 32, None, 16384)
    assert [rows for rows, _ in found.shapes] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert not found.pads
