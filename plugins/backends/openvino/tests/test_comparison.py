"""Language models whose conversion answers otherwise are refused, and right ones are not, whatever is converted by."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers

from modelport.contract import Generate, Program
from modelport.testing.checkpoints import tiny_gpt2, tiny_llama
from modelport_backend_openvino import comparison, convert
from modelport_backend_openvino.exported import generator_converter

GENERATES = Program({"main": Generate()})
CONVERTS = "_by_optimum" if generator_converter() == "optimum-intel" else "_by_transformers"
OTHERWISE = r"generates otherwise than the original \(log-probabilities of the tokens after .* prompt of \d+ are \d\.\d+ apart"


@pytest.fixture
def converts_wrongly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the converter writes has other weights than the checkpoint."""
    other, right = tiny_llama(tmp_path / "other", seed=1), getattr(convert, CONVERTS)
    monkeypatch.setattr(convert, CONVERTS, lambda job, checkpoint, folder: right(job, other, folder))


@pytest.fixture
def no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """The weights fit into memory as they are, but not in float32."""
    monkeypatch.setattr(comparison.psutil, "virtual_memory", lambda: SimpleNamespace(available=0))


def halved(folder: Path) -> Path:
    model = transformers.AutoModelForCausalLM.from_pretrained(tiny_llama(folder), dtype=torch.bfloat16)
    model.save_pretrained(folder)
    return folder


def converted(load: Callable, folder: Path, **options: Any) -> Any:
    return load(folder, GENERATES, options={"cache": str(folder.parent / "cache"), **options})


@pytest.mark.usefixtures("converts_wrongly")
def test_a_conversion_with_other_answers_is_refused_and_not_kept(load: Callable, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=OTHERWISE):
        converted(load, tiny_llama(tmp_path / "m"), weights="int8")
    assert [path for path in (tmp_path / "cache").iterdir() if path.suffix != ".lock"] == []


@pytest.mark.usefixtures("no_room")
def test_halves_are_compared_as_they_are_where_float32_does_not_fit(load: Callable, tmp_path: Path) -> None:
    assert converted(load, halved(tmp_path / "m")).engine("main")


@pytest.mark.usefixtures("no_room", "converts_wrongly")
def test_halves_with_other_answers_are_refused_there_as_well(load: Callable, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=OTHERWISE):
        converted(load, halved(tmp_path / "m"))


def test_a_model_with_few_positions_is_asked_for_no_more(load: Callable, tmp_path: Path) -> None:
    assert converted(load, tiny_gpt2(tmp_path / "m", n_positions=40), weights="int8").engine("main")


@pytest.mark.skipif(generator_converter() != "optimum-intel", reason="it is optimum that converts these otherwise")
def test_a_decoder_that_the_converter_does_not_know_is_refused(load: Callable, tmp_path: Path) -> None:
    torch.manual_seed(0)
    layers = {f"{side}_{name}": 2 for side in ("encoder", "decoder") for name in ("layers", "attention_heads")}
    sizes = {"d_model": 32, "decoder_ffn_dim": 64, "vocab_size": 128, **layers}
    config = transformers.BlenderbotConfig(**sizes, is_decoder=True, is_encoder_decoder=False, init_std=0.5)
    transformers.BlenderbotForCausalLM(config).save_pretrained(tmp_path / "m")
    with pytest.raises(ValueError, match=OTHERWISE):
        converted(load, tmp_path / "m")
