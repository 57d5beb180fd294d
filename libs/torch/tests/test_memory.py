from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
import torch

from modelport.contract import Generate, OutOfMemory, Output
from modelport_torch.memory import as_out_of_memory, is_out_of_memory


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
        RuntimeError("MPS backend out of memory (MPS allocated: 17.90 GiB, other allocations: 1 GiB, max allowed: 18.13 GiB)."),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."
        ),
        OSError("Cannot allocate memory"),
        MemoryError(),
    ],
)
def test_libraries_say_in_many_ways_that_memory_ran_out(error: Exception) -> None:
    assert is_out_of_memory(error)


@pytest.mark.parametrize(
    "error", [RuntimeError("CUDA error: device-side assert triggered"), ValueError("out of memory"), KeyError("a")]
)
def test_other_errors_are_not_taken_for_it(error: Exception) -> None:
    assert not is_out_of_memory(error)


def test_what_crosses_to_the_server_is_still_a_memory_error() -> None:
    error = pickle.loads(pickle.dumps(as_out_of_memory(torch.OutOfMemoryError("CUDA  out of memory"), "a batch")))
    assert isinstance(error, OutOfMemory)
    assert isinstance(error, MemoryError)
    assert error.kind == "out_of_memory"
    assert error.message == "a batch did not fit in memory: CUDA out of memory"


def test_batch_that_does_not_fit_fails_alone_and_is_let_go(load: Any, tiny: Any, forward_of: Any, monkeypatch: Any) -> None:
    runner = load(tiny("bert"), forward_of("feature-extraction", Output("last_hidden_state")))
    batch = {"input_ids": np.array([[2, 9, 3]]), "attention_mask": np.ones((1, 3), np.int64)}
    given = torch.nn.functional.gelu

    def full(*args: Any, **rest: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

    monkeypatch.setattr(torch.nn.functional, "gelu", full)
    monkeypatch.setattr("transformers.activations.GELUActivation.forward", full)
    error = runner.submit("main", batch).exception()
    assert isinstance(error, OutOfMemory)
    assert error.__cause__ is None
    assert error.__context__ is None, "what it holds of the failed batch must not outlive it"
    monkeypatch.undo()
    assert torch.nn.functional.gelu is given
    assert runner.submit("main", batch).result()["last_hidden_state"].shape == (1, 3, 32)


@pytest.mark.parametrize("where", ["modelport_torch.engine.model.SteppedModel.prefill", "modelport_torch.calibrate.Probe.run"])
def test_load_that_runs_out_while_the_model_is_tried_is_said_as_that(
    where: str, load: Any, tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any, **rest: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 GiB.")

    monkeypatch.setattr(where, full)
    with pytest.raises(
        OutOfMemory, match="the model and what generation needs on a host did not fit in memory: CUDA out of memory"
    ):
        load(tiny("llama"), Generate())
