from __future__ import annotations

import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from modelport.contract import (
    ArraySpec,
    ConfigurationError,
    DeviceArray,
    Module,
    Normalize,
    Output,
    Pool,
    Program,
    Softmax,
    TopK,
)
from modelport.contract import reduce as reference
from modelport_torch.array import TorchArray

IDS = np.array([[2, 10, 11, 12, 3], [2, 20, 3, 0, 0]])
MASK = (IDS != 0).astype(np.int64)
BATCH = {"input_ids": IDS, "attention_mask": MASK}


class Doubler(torch.nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = torch.nn.Parameter(torch.tensor(factor))

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"y": x * self.factor}


def make_doubler(folder: Path, factor: float = 2.0) -> torch.nn.Module:
    return Doubler(factor)


@pytest.fixture
def bert(tiny: Callable[..., Path]) -> Path:
    return tiny("bert")


def test_forward_equals_transformers_on_the_same_weights(bert: Path, load: Callable[..., Any], forward_of: Any) -> None:
    runner = load(bert, forward_of("feature-extraction", Output("hidden", source="last_hidden_state")))
    model = transformers.AutoModel.from_pretrained(bert)
    with torch.no_grad():
        wanted = model(input_ids=torch.from_numpy(IDS), attention_mask=torch.from_numpy(MASK)).last_hidden_state.numpy()
    got = runner.submit("main", BATCH).result()["hidden"]
    assert isinstance(got, np.ndarray)
    np.testing.assert_allclose(got[MASK == 1], wanted[MASK == 1], rtol=1e-5, atol=1e-6)


def test_forward_reduces_as_the_reference_would(bert: Path, load: Callable[..., Any], forward_of: Any) -> None:
    outputs = (
        Output("raw", source="last_hidden_state"),
        Output("text", source="last_hidden_state", chain=(Pool("mean"), Normalize())),
        Output("best", source="pooler_output", chain=(Softmax(), TopK(2))),
    )
    runner = load(bert, forward_of("feature-extraction", *outputs))
    got = runner.submit("main", BATCH).result()
    assert sorted(got) == ["best", "best_indices", "raw", "text"]
    raw = {"raw": got["raw"], "text": got["raw"], "best": got["best"]}
    wanted = reference.finish(outputs, raw, BATCH, frozenset({"softmax", "topk"}))
    np.testing.assert_allclose(got["text"], wanted["text"], rtol=1e-5, atol=1e-6)
    assert got["best"].shape == got["best_indices"].shape == (2, 2)


def test_inputs_that_the_model_does_not_take_are_left_out(tiny: Any, load: Callable[..., Any], forward_of: Any) -> None:
    entry = forward_of(
        "causal-lm", Output("logits", chain=(Pool("last"),)), names=("input_ids", "attention_mask", "token_type_ids")
    )
    got = load(tiny("llama"), entry).submit("main", BATCH | {"token_type_ids": np.zeros_like(IDS)}).result()["logits"]
    assert got.shape == (2, 261)


def test_read_only_memory_is_not_written_to(bert: Path, load: Callable[..., Any], forward_of: Any) -> None:
    runner = load(bert, forward_of("feature-extraction", Output("last_hidden_state")))
    frozen = {name: np.frombuffer(value.tobytes(), value.dtype).reshape(value.shape) for name, value in BATCH.items()}
    assert runner.submit("main", frozen).result()["last_hidden_state"].shape == (2, 5, 32)


def test_kept_output_is_a_handle_that_another_entry_takes(
    bert: Path, load: Callable[..., Any], forward_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = forward_of("feature-extraction", Output("x", source="last_hidden_state", keep=True))
    double = Module(
        build="modelport_torch_test_builders:make",
        kwargs={"factor": 3.0},
        inputs=(ArraySpec("x", "float32", ("batch", "sequence", 32)),),
        outputs=(Output("y"),),
    )
    builders = types.ModuleType("modelport_torch_test_builders")
    builders.make = make_doubler  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, builders.__name__, builders)
    runner = load(bert, Program({"encode": encode, "double": double}))
    kept = runner.submit("encode", BATCH).result()["x"]
    assert isinstance(kept, DeviceArray)
    assert (kept.shape, kept.dtype) == ((2, 5, 32), "float32")
    np.testing.assert_allclose(runner.submit("double", {"x": kept}).result()["y"], kept.numpy() * 3, rtol=1e-6)
    assert kept[1].shape == (5, 32)
    assert torch.equal(torch.from_dlpack(kept), kept.tensor)


def test_handle_of_bfloat16_says_so_and_reads_as_float32() -> None:
    handle = TorchArray(torch.ones(2, dtype=torch.bfloat16))
    assert handle.dtype == "bfloat16"
    assert handle.numpy().dtype == np.float32


def test_second_checkpoint_is_loaded_beside_the_first(tiny: Any, load: Callable[..., Any], forward_of: Any) -> None:
    program = Program(
        {
            "embed": forward_of("feature-extraction", Output("text", source="last_hidden_state", chain=(Pool("cls"),))),
            "score": forward_of("sequence-classification", Output("logits"), checkpoint="judge"),
        },
        {"judge": str(tiny("cross_encoder"))},
    )
    runner = load(tiny("bert"), program)
    assert runner.submit("embed", BATCH).result()["text"].shape == (2, 32)
    assert runner.submit("score", BATCH).result()["logits"].shape == (2, 1)


def test_another_method_of_the_model_can_be_called(bert: Path, load: Callable[..., Any], forward_of: Any) -> None:
    entry = forward_of("feature-extraction", Output("widths"), names=("input_ids",), call="embeddings")
    assert load(bert, entry).submit("main", {"input_ids": IDS}).result()["widths"].shape == (2, 5, 32)


def test_method_that_the_model_lacks_is_refused_when_loading(bert: Path, load: Callable[..., Any], forward_of: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"calls 'get_smell', which BertModel does not have"):
        load(bert, forward_of("feature-extraction", Output("x"), call="get_smell"))


def test_output_that_the_model_lacks_is_refused_when_loading_with_what_it_has(
    bert: Path, load: Callable[..., Any], forward_of: Any
) -> None:
    with pytest.raises(ConfigurationError, match=r"no output 'logits', which entry 'main' wants; it has: last_hidden_state"):
        load(bert, forward_of("feature-extraction", Output("logits")))


def test_batch_that_fails_harms_no_other(bert: Path, load: Callable[..., Any], forward_of: Any) -> None:
    runner = load(bert, forward_of("feature-extraction", Output("last_hidden_state")))
    assert runner.submit("main", {"input_ids": IDS + 10_000}).exception() is not None
    assert runner.submit("main", BATCH).exception() is None


def test_hidden_state_of_a_layer_can_be_asked_for(bert: Path, load: Callable[..., Any], forward_of: Any) -> None:
    runner = load(bert, forward_of("feature-extraction", Output("early", source="hidden_states.1"), Output("last_hidden_state")))
    got = runner.submit("main", BATCH).result()
    assert got["early"].shape == got["last_hidden_state"].shape
    assert not np.allclose(got["early"], got["last_hidden_state"])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_dtype_that_was_asked_for_is_used_and_stated(dtype: str, bert: Path, load: Callable[..., Any], forward_of: Any) -> None:
    runner = load(bert, forward_of("feature-extraction", Output("kept", source="last_hidden_state", keep=True)), dtype=dtype)
    assert runner.facts["dtype"] == dtype
    assert runner.submit("main", BATCH).result()["kept"].dtype == dtype


def test_fast_dtype_is_taken_only_if_it_answers_alike(tiny: Any, load: Callable[..., Any], forward_of: Any) -> None:
    entry = forward_of("feature-extraction", Output("text", source="last_hidden_state", chain=(Pool("mean"), Normalize())))
    facts = load(tiny("bert"), entry, dtype="fast").facts
    verdict, _, _ = facts["calibration"].partition(":")
    assert (verdict, facts["dtype"]) in {("bfloat16 passed", "bfloat16"), ("bfloat16 failed", "float32")}
    assert "cosine" in facts["calibration"]


def test_closing_twice_is_allowed(bert: Path, load: Callable[..., Any], forward_of: Any) -> None:
    runner = load(bert, forward_of("feature-extraction", Output("last_hidden_state")))
    runner.close()
    runner.close()
