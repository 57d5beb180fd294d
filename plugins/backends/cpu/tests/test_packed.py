from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch

from modelport.contract import ArraySpec, ConfigurationError, LoadContext, ModelCard, Module, Output, Program
from modelport_backend_cpu.backend import CpuBackend
from modelport_backend_cpu.packed import PackedLinear, pack


class Plain(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = torch.nn.Sequential(torch.nn.Linear(24, 48), torch.nn.GELU(), torch.nn.Linear(48, 8, bias=False))

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"y": self.inner(x)}


class ReachesInside(Plain):
    """Uses a layer's weight itself, which a packed layer does not have."""

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"y": torch.nn.functional.linear(x, self.inner[0].weight)}


class AddsInside(Plain):
    """Adds a layer's weight in place, as LayoutLMv3 does with its biases of positions."""

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        y = self.inner(x)
        y += self.inner[2].weight.t()[:1, :] * 1e-3
        return {"y": y}


def context(kind: type[torch.nn.Module], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **rest: Any) -> LoadContext:
    def make(folder: Path) -> torch.nn.Module:
        torch.manual_seed(0)
        return kind()

    builders = types.ModuleType("modelport_backend_cpu_builders")
    builders.make = make  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, builders.__name__, builders)
    spec = ArraySpec("x", "float32", ("batch", "sequence", 24))
    program = Program({"main": Module(build=f"{builders.__name__}:make", inputs=(spec,), outputs=(Output("y"),))})
    device = CpuBackend().probe().devices[0]
    return LoadContext(
        card=ModelCard(name="built", path=str(tmp_path)),
        program=program,
        checkpoints={"main": tmp_path},
        devices=(device,),
        **rest,
    )


def answers(given: LoadContext) -> tuple[np.ndarray, str]:
    runner = CpuBackend().load(given, lambda what, fraction: None)
    x = np.random.default_rng(0).standard_normal((2, 5, 24)).astype(np.float32)
    return runner.submit("main", {"x": x}).result()["y"], runner.facts.get("linear", "")


def test_packed_layers_answer_as_plain_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packing = context(Plain, tmp_path, monkeypatch)
    packed, fact = answers(packing)
    plain, no_fact = answers(msgspec.structs.replace(packing, options={"packed": False}))
    assert (fact, no_fact) == ("oneDNN, packed (2 layers)", "")
    np.testing.assert_allclose(packed, plain, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", [ReachesInside, AddsInside])
def test_model_that_needs_its_weights_is_left_as_it_was(
    kind: type[torch.nn.Module], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packing = context(kind, tmp_path, monkeypatch)
    tried, fact = answers(packing)
    plain, _ = answers(msgspec.structs.replace(packing, options={"packed": False}))
    assert fact.startswith("torch (oneDNN, packed (2 layers) was tried: ")
    np.testing.assert_array_equal(tried, plain)


@pytest.mark.parametrize("rows", [1, 7, 64])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_packed_product_is_the_product(rows: int, dtype: torch.dtype) -> None:
    linear = torch.nn.Linear(40, 30).to(dtype)
    x = torch.randn(2, rows, 40, dtype=dtype)
    with torch.inference_mode():
        torch.testing.assert_close(PackedLinear(linear)(x), linear(x), rtol=2e-2 if dtype == torch.bfloat16 else 1e-4, atol=1e-2)


def test_a_packed_layer_tells_its_type_and_shape_and_keeps_its_values() -> None:
    weight = PackedLinear(torch.nn.Linear(4, 6)).weight
    assert (weight.dtype, weight.shape, weight.size(0), weight.dim()) == (torch.float32, (6, 4), 6, 2)
    with pytest.raises(TypeError, match="values are packed"):
        weight.t()


def test_layers_of_other_kinds_are_left_alone() -> None:
    class Special(torch.nn.Linear):
        pass

    model = torch.nn.ModuleList([Special(4, 4), torch.nn.Linear(4, 4).double()])
    assert pack(model) is None


def test_packed_layers_are_not_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packing = context(Plain, tmp_path, monkeypatch, options={"compile": "auto"})
    runner = CpuBackend().load(packing, lambda what, fraction: None)
    assert runner.facts["compile"].startswith("not compiled: its linear layers are oneDNN, packed (2 layers)")
    with pytest.raises(ConfigurationError, match="packed = false leaves them plain"):
        CpuBackend().load(msgspec.structs.replace(packing, options={"compile": "on"}), lambda what, fraction: None)
