"""What graphs do on a device, for its owner to run: answers, memory, and the times that `auto` decides by (printed with -rP).

Where there is no device, all of it is skipped with the probe's reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelport.contract import Forward, Generate, GenerateRequest, Item, LoadContext, Normalize, Output, Pool, Program, Sampling
from modelport.contract.program import ArraySpec
from modelport.contract.session import pad_and_stack
from modelport.testing.backend import BackendSuite, card_of
from modelport.testing.checkpoints import tiny_bert, tiny_llama
from modelport_backend_cuda.backend import CudaBackend

SPECS = (ArraySpec("input_ids"), ArraySpec("attention_mask"))
EMBED = Program(
    {
        "main": Forward(
            head="feature-extraction",
            inputs=SPECS,
            outputs=(Output("mean", source="last_hidden_state", chain=(Pool("mean"), Normalize())),),
        )
    }
)
WRITE = Program({"main": Generate()})


class TestCudaWithGraphs(BackendSuite):
    """The whole suite once more, with graphs."""

    backend = CudaBackend()
    options = {"compile": "on"}
    tolerance = 1e-4

    def forward_checkpoint(self, folder: Path) -> Path:
        return tiny_bert(folder)

    def generate_checkpoint(self, folder: Path) -> Path:
        return tiny_llama(folder)


@pytest.fixture
def load() -> Iterator[Callable[..., Any]]:
    """`load(folder, program, choice)` is a runner on the first device, closed when the test ends."""
    backend, runners = CudaBackend(), []
    probe = backend.probe()
    if not probe.devices:
        pytest.skip(probe.reason)

    def make(folder: Path, program: Program, choice: str) -> Any:
        context = LoadContext(
            card=card_of(folder),
            program=program,
            checkpoints={"main": folder},
            devices=probe.devices[:1],
            dtype="float32",
            options={"compile": choice},
        )
        runners.append(backend.load(context, lambda what, fraction: None))
        return runners[-1]

    yield make
    for runner in runners:
        runner.close()


def embedded(runner: Any, lengths: list[int]) -> np.ndarray:
    draw = np.random.default_rng(7)
    ids = [draw.integers(1, 64, length) for length in lengths]
    shapes = runner.limits.shapes or [(len(ids), max(lengths))]
    shape = min(s for s in shapes if s[0] >= len(ids) and s[1] >= max(lengths))
    batch = pad_and_stack(SPECS, [Item({"input_ids": row, "attention_mask": np.ones_like(row)}) for row in ids], shape)
    found: np.ndarray = runner.submit("main", batch).result()["mean"][: len(ids)]
    return found


def written(runner: Any) -> dict[int, list[int]]:
    engine, out = runner.engine("main"), {}
    for place, (length, count) in enumerate([(3, 90), (40, 20), (7, 60), (1, 5), (12, 33)]):
        ids = np.arange(2, 2 + length)
        params = Sampling(max_new_tokens=count, ignore_eos=True)
        engine.add(GenerateRequest(id=place, inputs={"input_ids": ids}, params=params))
        engine.step()
    while engine.load().running or engine.load().waiting:
        for event in engine.step():
            out.setdefault(event.id, []).extend(event.tokens)
    return out


def test_graphs_give_the_same_embeddings(load: Callable[..., Any], tmp_path: Path) -> None:
    folder = tiny_bert(tmp_path / "bert")
    plain, graphs = load(folder, EMBED, "off"), load(folder, EMBED, "on")
    assert graphs.facts["compile"].startswith("compiled, graphs of ")
    for lengths in ([5], [3, 9, 40], [1, 2, 3, 4, 5, 6, 7], [64]):
        np.testing.assert_allclose(embedded(graphs, lengths), embedded(plain, lengths), atol=1e-4)


def test_graphs_generate_the_same_tokens(load: Callable[..., Any], tmp_path: Path) -> None:
    folder = tiny_llama(tmp_path / "llama")
    plain, graphs = load(folder, WRITE, "off"), load(folder, WRITE, "on")
    assert graphs.facts["decode"].startswith("graphs: ")
    assert written(graphs) == written(plain)


def test_memory_of_graphs_is_counted_and_comes_back(load: Callable[..., Any], tmp_path: Path) -> None:
    import torch

    from modelport_torch.accelerator import held_by_graphs

    folder = tiny_bert(tmp_path / "bert")
    assert load(folder, EMBED, "off").facts["graph_bytes"] == "0"
    facts = load(folder, EMBED, "on").facts
    assert 0 < int(facts["graph_bytes"]) <= int(facts["device_bytes"])
    written(writer := load(tiny_llama(tmp_path / "llama"), WRITE, "on"))
    held = held_by_graphs(torch.cuda.memory_snapshot(), 0)[0]
    writer.close()
    assert held_by_graphs(torch.cuda.memory_snapshot(), 0)[0] < held


@pytest.mark.parametrize(("make", "program", "fact"), [(tiny_bert, EMBED, "compile"), (tiny_llama, WRITE, "decode")])
def test_auto_measures_and_says_so(make: Any, program: Program, fact: str, load: Callable[..., Any], tmp_path: Path) -> None:
    found = load(make(tmp_path / "model"), program, "auto").facts[fact]
    print(f"{fact}: {found}")
    assert " ms instead of " in found
