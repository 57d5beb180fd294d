from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from modelport.contract import ArraySpec, ConfigurationError, Forward, Module, Output, Program
from modelport_torch.load import auto_class, checkpoint_dtype, load_model, load_module


@pytest.mark.parametrize(
    ("head", "name"),
    [
        ("feature-extraction", "AutoModel"),
        ("causal-lm", "AutoModelForCausalLM"),
        ("sequence-classification", "AutoModelForSequenceClassification"),
        ("masked-lm", "AutoModelForMaskedLM"),
        ("seq-to-seq-lm", "AutoModelForSeq2SeqLM"),
        ("image-text-to-text", "AutoModelForImageTextToText"),
        ("speech-seq-2-seq", "AutoModelForSpeechSeq2Seq"),
        ("ctc", "AutoModelForCTC"),
    ],
)
def test_head_names_an_auto_class(head: str, name: str) -> None:
    assert auto_class(head).__name__ == name


def test_head_without_an_auto_class_is_refused_with_the_version() -> None:
    with pytest.raises(ConfigurationError, match=r"the head 'telepathy' has no auto class in transformers 5"):
        auto_class("telepathy")


def test_loading_reports_progress_and_draws_no_bars(
    tiny: Callable[..., Path], load: Callable[..., Any], forward_of: Callable[..., Forward], capfd: pytest.CaptureFixture[str]
) -> None:
    folder, seen = tiny("bert"), []
    capfd.readouterr()
    load(
        folder,
        forward_of("feature-extraction", Output("last_hidden_state")),
        progress=lambda what, fraction: seen.append((what, fraction)),
    )
    fractions = [fraction for _, fraction in seen]
    assert fractions == sorted(fractions)
    assert fractions[0] == 0.0
    assert seen[-1] == ("loaded", 1.0)
    assert any(what == "loading weights" for what, _ in seen)
    assert "it/s" not in capfd.readouterr().err


def test_missing_head_is_refused_and_its_weights_are_named(
    tiny: Callable[..., Path], load: Callable[..., Any], forward_of: Callable[..., Forward]
) -> None:
    with pytest.raises(ConfigurationError, match=r"lacks weights that sequence-classification needs \(classifier.bias, class"):
        load(tiny("bert"), forward_of("sequence-classification", Output("logits")))


def test_missing_pooler_matters_only_to_who_reads_it(
    tiny: Callable[..., Path], load: Callable[..., Any], forward_of: Callable[..., Forward], tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "no_pooler"
    shutil.copytree(tiny("bert"), folder)
    tensors = {name: value for name, value in load_file(folder / "model.safetensors").items() if "pooler" not in name}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    load(folder, forward_of("feature-extraction", Output("last_hidden_state")))
    with pytest.raises(ConfigurationError, match=r"pooler\.dense\.bias"):
        load(folder, forward_of("feature-extraction", Output("sentence", source="pooler_output")))


def test_folder_with_a_pickle_only_is_refused(tiny: Callable[..., Path], tmp_path: Path) -> None:
    folder = tmp_path / "pickle"
    shutil.copytree(tiny("bert"), folder)
    shutil.move(folder / "model.safetensors", folder / "pytorch_model.bin")
    with pytest.raises(ConfigurationError, match=r"cannot be loaded as feature-extraction"):
        load_model("feature-extraction", folder, "float32", torch.device("cpu"), lambda what, fraction: None)


def test_entries_of_one_head_share_their_weights(
    tiny: Callable[..., Path], load: Callable[..., Any], forward_of: Callable[..., Forward]
) -> None:
    one = forward_of("feature-extraction", Output("last_hidden_state"))
    two = forward_of("feature-extraction", Output("sentence", source="pooler_output"))
    assert len(load(tiny("bert"), Program({"one": one, "two": two}))._models) == 1


def test_checkpoint_dtype_is_what_its_config_says(tiny: Callable[..., Path], tmp_path: Path) -> None:
    assert checkpoint_dtype(tiny("bert")) == "float32"
    (tmp_path / "config.json").write_text('{"torch_dtype": "bfloat16"}')
    assert checkpoint_dtype(tmp_path) == "bfloat16"
    assert checkpoint_dtype(tmp_path / "nowhere") == "float32"


@pytest.mark.parametrize(
    ("build", "words"),
    [("no_such_package:make", "cannot be imported"), ("json:nothing", "cannot be imported"), ("builtins:str", "returned a str")],
)
def test_builder_that_gives_no_module_is_named(build: str, words: str) -> None:
    entry = Module(build=build, inputs=(ArraySpec("x"),), outputs=(Output("y"),))
    with pytest.raises(ConfigurationError, match=words):
        load_module(entry, Path(), None, torch.device("cpu"))


@pytest.mark.parametrize(("head", "kind"), [("causal-lm", "llama"), ("feature-extraction", "bert")])
def test_every_weight_and_buffer_lies_on_the_device_that_was_asked_for(head: str, kind: str, tiny: Callable[..., Path]) -> None:
    model = load_model(head, tiny(kind), "float32", torch.device("meta"), lambda what, fraction: None)
    assert {tensor.device.type for tensor in (*model.parameters(), *model.buffers())} == {"meta"}
