"""What users of the NPU notice, on QNN's emulation of it: answers like torch's, and a reason for every refusal."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
import transformers

from modelport.contract import (
    ArraySpec,
    ConfigurationError,
    Device,
    Forward,
    Generate,
    InvalidRequest,
    Module,
    Output,
    Pool,
    Program,
)
from modelport.testing.backend import card_of
from modelport.testing.checkpoints import tiny_bert
from modelport_backend_qnn import provider
from modelport_backend_qnn.backend import QnnBackend
from modelport_backend_qnn.bare import bare
from modelport_backend_qnn.shapes import buckets

TEXT = (ArraySpec("input_ids"), ArraySpec("attention_mask"))
IMAGE = (ArraySpec("pixel_values", "float32", ("batch", 3, 32, 32)),)
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}


def saved(folder: Path, model: Any) -> Any:
    torch.manual_seed(0)
    model.save_pretrained(folder)
    return model.eval()


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    return float((one * other).sum() / np.linalg.norm(one) / np.linalg.norm(other))


def encoder(output: str = "last_hidden_state") -> Program:
    return Program({"main": Forward(head="feature-extraction", inputs=TEXT, outputs=(Output(output),))})


def test_a_ragged_batch_of_texts_is_what_torch_says(load: Callable[..., Any], tmp_path: Path) -> None:
    config = transformers.RobertaConfig(vocab_size=100, max_position_embeddings=64, **SMALL)
    model = saved(tmp_path / "m", transformers.RobertaModel(config, add_pooling_layer=False))
    ids = np.random.default_rng(0).integers(5, 99, (2, 16))
    mask = np.ones((2, 16), np.int64)
    ids[1, 9:], mask[1, 9:] = 1, 0
    runner = load(tmp_path / "m", encoder(), shapes=[[2, 16]])
    found = runner.submit("main", {"input_ids": ids, "attention_mask": mask}).result()["last_hidden_state"]
    with torch.no_grad():
        expected = model(torch.from_numpy(ids), attention_mask=torch.from_numpy(mask)).last_hidden_state.numpy()
    assert cosine(found[0], expected[0]) > 0.9999
    assert cosine(found[1, :9], expected[1, :9]) > 0.9999


def test_an_image_model_is_what_torch_says(load: Callable[..., Any], tmp_path: Path) -> None:
    config = transformers.ViTConfig(image_size=32, patch_size=8, num_labels=5, **SMALL)
    model = saved(tmp_path / "m", transformers.ViTForImageClassification(config))
    program = Program({"main": Forward(head="image-classification", inputs=IMAGE, outputs=(Output("logits"),))})
    pixels = np.random.default_rng(0).normal(size=(1, 3, 32, 32)).astype(np.float32)
    found = load(tmp_path / "m", program).submit("main", {"pixel_values": pixels}).result()["logits"]
    with torch.no_grad():
        expected = model(torch.from_numpy(pixels)).logits.numpy()
    assert cosine(found, expected) > 0.9999


def test_a_token_that_the_model_lacks_is_the_callers_mistake(load: Callable[..., Any], tmp_path: Path) -> None:
    runner = load(tiny_bert(tmp_path / "m"), encoder(), shapes=[[1, 4]])
    ids = np.full((1, 4), 10**6)
    with pytest.raises(InvalidRequest, match="none of 0 to"):
        runner.submit("main", {"input_ids": ids, "attention_mask": np.ones_like(ids)}).result()


def test_a_model_that_uses_its_mask_otherwise_is_refused(load: Callable[..., Any], tmp_path: Path) -> None:
    config = transformers.DebertaV2Config(vocab_size=100, max_position_embeddings=64, **SMALL)
    saved(tmp_path / "m", transformers.DebertaV2Model(config))
    with pytest.raises(ConfigurationError, match="attention mask for more than a bias"):
        load(tmp_path / "m", encoder(), shapes=[[1, 8]])


def test_verdicts_name_what_the_npu_cannot_do(device: Device, tmp_path: Path) -> None:
    card = card_of(tiny_bert(tmp_path / "m"))

    def why(program: Program, dtype: str = "auto", **changes: Any) -> str:
        verdict = QnnBackend().verdict(program, msgspec.structs.replace(card, **changes), (device,), dtype)
        assert verdict.answer == "no"
        return verdict.reason

    assert "cache grows with every token" in why(Program({"main": Generate()}))
    sizes = (ArraySpec("pixel_values", "float32", ("batch", 3, "height", "width")),)
    detector = Program({"main": Forward(head="object-detection", inputs=sizes, outputs=(Output("logits"),))})
    assert "any size (pixel_values: height)" in why(detector)
    assert "computes in float16, or quantised in int16 or int8, and float32 was asked for" in why(encoder(), "float32")
    assert "quantised (gptq)" in why(encoder(), quantization="gptq")
    own = Module(build="a:b", inputs=TEXT, outputs=(Output("x"),))
    assert "module of its own" in why(Program({"main": own}))
    fine = QnnBackend().verdict(encoder(), card, (device,))
    assert (fine.answer, fine.dtype) == ("converted", "float16")
    assert "emulated by the processor: for tests only" in fine.reason
    quantised = QnnBackend().verdict(encoder(), card, (device,), "int8")
    assert (quantised.answer, quantised.dtype) == ("converted", "int8")
    assert "in int8, emulated by the processor: for tests only, after a quantisation" in quantised.reason
    assert quantised.memory_bytes < fine.memory_bytes


def test_without_an_npu_the_probe_says_what_would_help(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(provider.EMULATION)
    probe = QnnBackend().probe()
    if probe.devices:
        pytest.skip("there is one here")
    assert "reports no Hexagon NPU" in probe.reason
    assert "QNN_HTP_EMULATION=1" in probe.reason


def test_an_emulated_device_says_so(device: Device) -> None:
    if not device.properties.get("emulated"):
        pytest.skip("this one is real")
    assert device.name.endswith("emulated")


def test_shapes_are_fitted_to_the_model() -> None:
    entries = [Forward(head="feature-extraction", inputs=TEXT, outputs=(Output("x"),))]
    assert buckets(entries, None, None) == [(1, 32), (1, 128), (1, 512)]
    assert buckets(entries, 100, None) == [(1, 32), (1, 100)]
    assert buckets(entries, 512, [[4, 64], [1, 64]]) == [(1, 64), (4, 64)]
    images = [Forward(head="image-classification", inputs=IMAGE, outputs=(Output("x"),))]
    assert [rows for rows, _ in buckets(images, None, [[2, 1], [1, 1]])] == [1, 2]
    for wrong in ([], [[1]], [[0, 8]], "128", [[True, 8]]):
        with pytest.raises(ConfigurationError, match=r"list of \[items, tokens\]"):
            buckets(entries, None, wrong)


def test_programs_that_differ_in_reductions_share_a_conversion() -> None:
    def pooled(mode: Any) -> Program:
        outputs = (Output("vector", source="last_hidden_state", chain=(Pool(mode),)),)
        return Program({"main": Forward(head="feature-extraction", inputs=TEXT, outputs=outputs)})

    assert bare(pooled("mean")) == bare(pooled("cls")) == encoder()
