"""The runtime on a device that is not the host, where no such device is needed: a stand-in that computes on the host, holds its
tensors apart, and fails whenever host memory and its own meet in one operation, as a real one would.

It goes by the name `meta`, the one device that torch asks no driver for. Like Apple's, it has no float64.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

from modelport.contract import Constraint, Generate, InvalidRequest, Output
from modelport.contract.array import to_numpy
from modelport.contract.program import Argmax, At, Cast, LogSoftmax, Normalize, Pool, Sigmoid, Softmax, Splade, TopK
from modelport_torch import dtype as dtypes
from modelport_torch import runner as runners
from modelport_torch.backend import TorchBackend
from modelport_torch.engine.own import OwnBatch

FAR = torch.device("meta")
MAY_MIX = ("aten.copy_", "aten._to_copy", "aten.index.Tensor")  # the last with indices of the host, as everywhere


class FarTensor(torch.Tensor):
    """A tensor on the stand-in; what it holds is on the host."""

    @staticmethod
    def __new__(cls, near: torch.Tensor) -> FarTensor:
        made = torch.Tensor._make_wrapper_subclass(
            cls, near.size(), strides=near.stride(), storage_offset=near.storage_offset(), dtype=near.dtype, device=FAR
        )
        made.near = near
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return compute(func, args, kwargs or {})

    def tolist(self) -> Any:
        return self.near.tolist()

    def __repr__(self) -> str:
        return f"FarTensor({self.near})"


class FarMode(TorchDispatchMode):
    """Lets tensors be made on the stand-in."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return compute(func, args, kwargs or {})


def compute(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    tensors = [value for value in tree_flatten((args, kwargs))[0] if isinstance(value, torch.Tensor)]
    is_far = [isinstance(value, FarTensor) for value in tensors]
    if any(is_far) and not str(func).startswith(MAY_MIX):
        strays = [tuple(value.shape) for value, far in zip(tensors, is_far, strict=True) if not far and value.dim()]
        assert not strays, f"{func} was given tensors of the device, and of the host: {strays}"
    wanted = kwargs.get("device")
    on_far = any(is_far) if wanted is None else torch.device(wanted).type == FAR.type
    assert not (on_far and any(value.dtype == torch.float64 for value in tensors)), f"{func}: the device has no float64"
    if wanted is not None:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    near = tree_map(lambda value: value.near if isinstance(value, FarTensor) else value, (args, kwargs))
    made = func(*near[0], **near[1])
    if func._schema.is_mutable and func._schema.name.endswith("_"):
        return args[0]
    if "out" in kwargs:
        return kwargs["out"]
    return tree_map(lambda value: FarTensor(value) if on_far and isinstance(value, torch.Tensor) else value, made)


def move(model: torch.nn.Module) -> torch.nn.Module:
    for module in model.modules():
        for name, value in list(module._parameters.items()):
            if value is not None:
                module._parameters[name] = torch.nn.Parameter(FarTensor(value.data), requires_grad=False)
        for name, value in list(module._buffers.items()):
            if value is not None:
                module._buffers[name] = FarTensor(value)
    model.tie_weights()  # type: ignore[operator]
    return model


@pytest.fixture
def far(backend: TorchBackend, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The backend of these tests computes on the stand-in."""
    load, tensor, run = runners.load_model, torch.tensor, OwnBatch._run

    def load_far(head: str, folder: Path, dtype: str, device: torch.device, *rest: Any, **options: Any) -> Any:
        assert device == FAR
        return move(load(head, folder, dtype, torch.device("cpu"), *rest, **options))

    def tensor_far(data: Any, *, device: Any = None, **options: Any) -> torch.Tensor:
        made = tensor(data, **options)
        return made if device is None else made.to(device)

    def run_far(self: OwnBatch) -> None:
        with FarMode():
            run(self)

    monkeypatch.setattr(type(backend), "torch_device", lambda self, device: FAR)
    monkeypatch.setattr(runners, "load_model", load_far)
    monkeypatch.setattr(torch, "tensor", tensor_far)
    # Inference mode allows no tensors of a class of one's own; without gradients is what matters of it here.
    monkeypatch.setattr(torch.inference_mode, "__enter__", lambda self: vars(self).setdefault("off", torch.no_grad()).__enter__())
    monkeypatch.setattr(torch.inference_mode, "__exit__", lambda self, *error: self.off.__exit__(*error))
    monkeypatch.setattr(dtypes, "_WITHOUT_FLOAT64", frozenset({"meta"}))
    monkeypatch.setattr(OwnBatch, "_run", run_far)
    with FarMode():
        yield


def generated(crowd: Any, folder: Path) -> dict[tuple[int, int], list[int]]:
    """What every way to choose tokens gives, all at once and in pieces, some going on from what is kept of others."""
    found = crowd(folder, options={"prefill_tokens": 24})
    assert found.engine.how.startswith("engine"), found.engine.how
    long = [7 + index % 90 for index in range(60)]
    found.add(1, [9, 8, 7], max_new_tokens=6, ignore_eos=True)
    found.add(2, [30, 31], max_new_tokens=5, do_sample=True, seed=4, temperature=1.3, ignore_eos=True)
    found.add(3, [5] * 7, max_new_tokens=5, do_sample=True, seed=5, top_p=0.8, top_k=40, n=2, ignore_eos=True)
    found.add(4, [5, 6], max_new_tokens=5, do_sample=True, seed=6, typical_p=0.9, min_p=0.01, ignore_eos=True)
    found.add(5, [5, 6, 5, 6], max_new_tokens=5, repetition_penalty=1.3, no_repeat_ngram_size=2, ignore_eos=True)
    found.add(6, [40, 41], max_new_tokens=5, presence_penalty=0.5, frequency_penalty=0.2, logit_bias={7: 2.0}, min_new_tokens=3)
    found.add(7, [11, 12, 13], max_new_tokens=4, logprobs=3, prompt_logprobs=2, ignore_eos=True)
    found.add(8, [11, 12], max_new_tokens=8, constraint=Constraint("choice", '["yes", "no"]'))
    found.add(9, long, max_new_tokens=4, ignore_eos=True)
    found.add(10, [11, 12, 13], max_new_tokens=4, num_beams=2)
    found.drain()
    found.add(11, [*long, 50], max_new_tokens=4, ignore_eos=True)
    found.drain()
    assert any(event.id == 11 and event.cached_tokens for event in found.events)
    assert "error" not in found.finish.values()
    return dict(found.tokens)


@pytest.mark.parametrize("kind", ["llama", "gemma3", "gpt2"])
def test_generation_keeps_to_its_device_and_gives_the_hosts_tokens(
    kind: str, crowd: Any, tiny: Callable[..., Path], request: pytest.FixtureRequest
) -> None:
    expected = generated(crowd, tiny(kind))
    request.getfixturevalue("far")
    assert generated(crowd, tiny(kind)) == expected


@pytest.mark.usefixtures("far")
def test_stand_in_fails_where_host_and_device_meet() -> None:
    there = torch.ones(3, device=FAR)
    assert there.device == FAR
    assert (there + 1).tolist() == [2.0, 2.0, 2.0]
    with pytest.raises(AssertionError, match="of the device, and of the host"):
        there + torch.ones(3)
    with pytest.raises(AssertionError, match="no float64"):
        there + torch.ones(3, dtype=torch.float64, device=FAR) * 2


CHAINS: dict[str, tuple[Any, ...]] = {
    "mean": (Pool("mean"), Normalize()),
    "last": (Pool("last"), LogSoftmax()),
    "max": (Pool("max"), Sigmoid(), Argmax()),
    "top": (Pool("cls"), Softmax(), TopK(3)),
    "rows": (At("rows"),),
    "splade": (Splade(),),
    "wide": (Pool("mean"), Cast("float64")),
}


def test_forwards_keep_to_their_device_and_give_the_hosts_outputs(
    load: Any, tiny: Callable[..., Path], forward_of: Any, request: pytest.FixtureRequest
) -> None:
    outputs = [Output(name, source="last_hidden_state", chain=chain) for name, chain in CHAINS.items()]
    entry = forward_of("feature-extraction", Output("kept", source="last_hidden_state", keep=True), *outputs)
    batch = {"input_ids": np.array([[2, 9, 3], [2, 3, 0]]), "attention_mask": np.array([[1, 1, 1], [1, 1, 0]])}
    batch["rows"] = np.array([[0], [1]])
    expected = load(tiny("bert"), entry).submit("main", batch).result()
    request.getfixturevalue("far")
    runner = load(tiny("bert"), entry)
    found = runner.submit("main", batch).result()
    assert found["kept"].tensor.device == FAR
    assert found["kept"][0].tensor.device == FAR
    for name, value in expected.items():
        np.testing.assert_allclose(to_numpy(found.pop(name)), to_numpy(value), atol=1e-5)
    assert not found


@pytest.mark.usefixtures("far")
def test_token_that_the_model_lacks_never_reaches_the_device(load: Any, tiny: Callable[..., Path], forward_of: Any) -> None:
    runner = load(tiny("bert"), forward_of("feature-extraction", Output("last_hidden_state")))
    mask = np.ones((1, 2), np.int64)
    for wrong in (-1, 1 << 20):
        error = runner.submit("main", {"input_ids": np.array([[2, wrong]]), "attention_mask": mask}).exception()
        assert isinstance(error, InvalidRequest)
    assert runner.submit("main", {"input_ids": np.array([[2, 3]]), "attention_mask": mask}).exception() is None


@pytest.mark.usefixtures("far")
def test_faster_type_is_calibrated_on_the_device(load: Any, tiny: Callable[..., Path]) -> None:
    runner = load(tiny("llama"), Generate(), dtype="fast")
    assert runner.facts["calibration"].startswith("bfloat16 ")
