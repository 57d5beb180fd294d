from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
import transformers

import modelport_backend_openvino as plugin
from modelport.contract import (
    ArraySpec,
    ConfigurationError,
    Device,
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
from modelport.contract.program import Entry
from modelport.contract.runner import Runner
from modelport.testing.checkpoints import tiny_bert, tiny_cross_encoder
from modelport_backend_openvino.backend import OpenVinoBackend

INPUTS = (ArraySpec("input_ids"), ArraySpec("attention_mask"))
EMBED = Program(
    {
        "main": Forward(
            head="feature-extraction",
            inputs=INPUTS,
            outputs=(Output("embedding", source="last_hidden_state", chain=(Pool("mean"), Normalize())),),
        )
    }
)


def batch(rows: int = 4) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(3)
    mask = (np.arange(20) < draw.integers(3, 21, rows)[:, None]).astype(np.int64)
    return {"input_ids": draw.integers(1, 100, (rows, 20)) * mask, "attention_mask": mask}


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)


def test_plugin_registers_one_backend_named_as_its_entry_point() -> None:
    (backend,) = plugin.register_backends()
    assert backend.name == "openvino"
    assert not backend.imports_torch
    assert plugin.MODELPORT_CONTRACT == "1.0"


def test_probing_needs_no_torch_and_registering_not_even_openvino() -> None:
    code = (
        "import sys, modelport_backend_openvino as p; b = p.register_backends()[0];"
        "assert 'openvino' not in sys.modules; probe = b.probe(); assert probe.devices;"
        "sys.exit(bool({'torch', 'transformers'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_devices_are_openvinos_own(device: Device) -> None:
    assert device.id == "openvino:0"
    assert device.properties["openvino"] == "CPU"
    assert device.dtypes[0] == "float32"


@pytest.mark.parametrize(
    ("entry", "config", "reason"),
    [
        (Generate(mode="own"), {}, "own generate loop"),
        (Module(build="speech:Loop", inputs=(), outputs=(), traceable=False), {}, "loops or draws as its inputs say"),
        (Generate(rules=("suppress",)), {}, "rules over logits"),
        (Generate(), {"model_type": "mamba", "state_size": 16}, "recurrent state"),
        (Generate(), {"model_type": "t5", "is_encoder_decoder": True}, "encoder and a decoder"),
        (Forward(head="x", inputs=(ArraySpec("boxes", optional=True),), outputs=()), {}, "may be left out (boxes)"),
    ],
)
def test_what_cannot_run_is_refused_with_its_reason(entry: Entry, config: dict, reason: str, device: Device) -> None:
    verdict = OpenVinoBackend().verdict(Program({"main": entry}), ModelCard(name="m", config=config), [device])
    assert verdict.answer == "no"
    assert reason in verdict.reason


def test_a_precision_that_the_device_lacks_is_refused(device: Device) -> None:
    verdict = OpenVinoBackend().verdict(EMBED, ModelCard(name="m"), [device], "float64")
    assert verdict.answer == "no"
    assert "float64" in verdict.reason


def test_unknown_weights_are_a_configuration_error(load: Callable, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="original, int8, int4"):
        load(tiny_bert(tmp_path / "bert"), EMBED, options={"weights": "int3"})


@pytest.mark.parametrize(("dtype", "least"), [("float32", 0.99999), ("bfloat16", 0.999)])
def test_embeddings_equal_transformers(dtype: str, least: float, load: Callable, tmp_path: Path, device: Device) -> None:
    if dtype not in device.dtypes:
        pytest.skip(f"this device does not compute in {dtype}")
    folder = tiny_bert(tmp_path / "bert")
    runner = load(folder, EMBED, dtype=dtype)
    assert runner.facts["dtype"] == dtype
    given = batch()
    found = runner.submit("main", given).result(60)["embedding"]
    model = transformers.AutoModel.from_pretrained(folder).eval()
    with torch.no_grad():
        hidden = model(**{name: torch.from_numpy(array) for name, array in given.items()}).last_hidden_state.numpy()
    mask = given["attention_mask"][..., None]
    pooled = (hidden * mask).sum(1) / mask.sum(1)
    assert cosines(found, pooled).min() >= least
    np.testing.assert_allclose(np.linalg.norm(found, axis=-1), 1, atol=1e-2)


def test_compressed_weights_answer_nearly_the_same_and_say_so(load: Callable, tmp_path: Path) -> None:
    folder = tiny_bert(tmp_path / "bert")
    plain = load(folder, EMBED).submit("main", batch()).result(60)["embedding"]
    small = load(folder, EMBED, options={"weights": "int8"})
    assert small.facts["weights"] == "int8"
    close = small.submit("main", batch()).result(60)["embedding"]
    assert cosines(plain, close).min() >= 0.999
    assert not np.array_equal(plain, close)


def test_half_precision_checkpoints_stay_half_on_disk(load: Callable, context: Callable, tmp_path: Path) -> None:
    def size(runner: Runner) -> int:
        return sum(file.stat().st_size for file in Path(runner.facts["converted"]).rglob("openvino_model.bin"))

    folder = tiny_bert(tmp_path / "bert", intermediate_size=2048)
    whole = size(load(folder, EMBED))
    transformers.AutoModel.from_pretrained(folder, dtype=torch.bfloat16).save_pretrained(folder)
    runner = load(folder, EMBED)
    assert size(runner) < 0.6 * whole
    model = transformers.AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    given = batch()
    with torch.no_grad():
        hidden = model(**{name: torch.from_numpy(array) for name, array in given.items()}).last_hidden_state.numpy()
    mask = given["attention_mask"][..., None]
    found = runner.submit("main", given).result(60)["embedding"]
    assert cosines(found, (hidden * mask).sum(1) / mask.sum(1)).min() >= 0.9999


@pytest.mark.parametrize(("options", "in_flight"), [({}, 1), ({"in_flight": 2}, 2)])
def test_many_batches_in_flight_keep_their_own_answers(
    options: dict[str, int], in_flight: int, load: Callable, tmp_path: Path
) -> None:
    runner = load(tiny_bert(tmp_path / "bert"), EMBED, options=options)
    assert runner.limits.in_flight == in_flight
    alone = [runner.submit("main", batch(rows)).result(60)["embedding"] for rows in range(1, 9)]
    for _ in range(20):
        pairs = zip(range(1, 9, 2), range(2, 10, 2), strict=True)
        for first, second in pairs:
            futures = [(rows, runner.submit("main", batch(rows))) for rows in (first, second)]
            for rows, future in futures:
                np.testing.assert_allclose(future.result(60)["embedding"], alone[rows - 1], atol=1e-6)


@pytest.mark.parametrize("wanted", ["AUTO:CPU", "HETERO:CPU"])
def test_a_virtual_device_answers_as_the_real_one_does(load: Callable, tmp_path: Path, wanted: str) -> None:
    folder = tiny_bert(tmp_path / "bert")
    plain, virtual = (load(folder, EMBED, options=options) for options in ({}, {"device": wanted}))
    assert virtual.facts["device"] == wanted
    one, other = (runner.submit("main", batch()).result() for runner in (plain, virtual))
    for name, array in one.items():
        np.testing.assert_allclose(array, other[name], atol=1e-5)


def test_a_device_that_is_not_there_is_refused_with_openvinos_reason(load: Callable, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot run entry 'main' on NOPE"):
        load(tiny_bert(tmp_path / "bert"), EMBED, options={"device": "NOPE"})


def test_another_head_converts_as_well(load: Callable, tmp_path: Path) -> None:
    folder = tiny_cross_encoder(tmp_path / "scores", labels=3)
    entry = Forward(head="sequence-classification", inputs=INPUTS, outputs=(Output("logits"),))
    found = load(folder, Program({"main": entry})).submit("main", batch()).result(60)["logits"]
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        expected = model(**{name: torch.from_numpy(array) for name, array in batch().items()}).logits.numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_module_of_ones_own_converts(load: Callable, tmp_path: Path) -> None:
    entry = Module(
        build="torch.nn.modules.linear:Linear_of_suite",
        inputs=(ArraySpec("input", dtype="float32", axes=("batch", 8)),),
        outputs=(Output("output"),),
    )
    with pytest.raises(ConfigurationError, match="Linear_of_suite"):
        load(tiny_bert(tmp_path / "bert"), Program({"main": entry}))
    works = msgspec.structs.replace(entry, build="modelport_backend_openvino_example:build")
    module = sys.modules["modelport_backend_openvino_example"] = type(sys)("modelport_backend_openvino_example")
    module.build = lambda folder: torch.nn.Sequential(torch.nn.Linear(8, 4), torch.nn.Tanh())  # type: ignore[attr-defined]
    try:
        runner = load(tmp_path / "bert", Program({"main": works}))
        out = runner.submit("main", {"input": np.ones((3, 8), np.float32)}).result(60)["output"]
    finally:
        del sys.modules["modelport_backend_openvino_example"]
    assert out.shape == (3, 4)
    np.testing.assert_allclose(out[0], out[2])


def builder_of(kind: type[torch.nn.Module], monkeypatch: pytest.MonkeyPatch) -> str:
    """What a program calls to get a module of `kind`."""
    example = type(sys)("modelport_backend_openvino_example")
    example.build = lambda folder: kind()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, example.__name__, example)
    return f"{example.__name__}:build"


class Counted(torch.nn.Module):
    """Takes the number of items for constant, as some detectors do, and gives one answer under two names."""

    def forward(self, input: torch.Tensor) -> dict[str, torch.Tensor]:
        offsets = torch.arange(len(input) * 4.0).reshape(len(input), 4)
        answer = input[:, :4] * 2 + offsets
        return {"one": answer, "other": answer + 0}


def test_what_takes_the_number_of_items_for_constant_is_asked_for_one_at_a_time(
    load: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = builder_of(Counted, monkeypatch)
    entry = Module(
        build=built,
        inputs=(ArraySpec("input", dtype="float32", axes=("batch", 8)),),
        outputs=(Output("one"), Output("other")),
    )
    runner = load(tiny_bert(tmp_path / "bert"), Program({"main": entry}))
    assert runner.limits.max_items == 1
    out = runner.submit("main", {"input": np.ones((1, 8), np.float32)}).result(60)
    for name in ("one", "other"):
        np.testing.assert_allclose(out[name], [[2, 3, 4, 5]])


class Windowed(torch.nn.Module):
    """Sums what it is given, and of more than 20 tokens the first 20 only."""

    def forward(self, input: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"sum": (input[:, :20] if input.shape[1] > 20 else input).sum(1, keepdim=True)}


def test_sequences_that_the_model_computes_in_another_way_than_what_was_converted_are_not_taken(
    load: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = builder_of(Windowed, monkeypatch)
    entry = Module(
        build=built,
        inputs=(ArraySpec("input", dtype="float32", axes=("batch", "sequence")),),
        outputs=(Output("sum"),),
    )
    folder = tiny_bert(tmp_path / "bert")
    with pytest.raises(ConfigurationError, match=r"right for at most 20 tokens.*max_length = 20") as caught:
        load(folder, Program({"main": entry}))
    assert caught.value.param == "max_length"
    runner = load(folder, Program({"main": entry}), max_length=20)
    assert runner.limits.max_length == 20
    out = runner.submit("main", {"input": np.ones((2, 20), np.float32)}).result(60)
    np.testing.assert_allclose(out["sum"], [[20], [20]])


class Skipping(torch.nn.Module):
    """Another model where nothing is masked, which no trace sees."""

    def forward(self, input: torch.Tensor, attention_mask: torch.Tensor) -> dict[str, torch.Tensor]:
        if not torch.compiler.is_exporting() and bool(attention_mask.all()):
            return {"answer": input.flip(1)}
        return {"answer": input * attention_mask}


def test_a_model_that_goes_another_way_where_nothing_is_masked_is_refused(
    load: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = builder_of(Skipping, monkeypatch)
    axes = ("batch", 8)
    entry = Module(
        build=built,
        inputs=(ArraySpec("input", dtype="float32", axes=axes), ArraySpec("attention_mask", dtype="float32", axes=axes)),
        outputs=(Output("answer"),),
    )
    with pytest.raises(ValueError, match="answers otherwise"):
        load(tiny_bert(tmp_path / "bert"), Program({"main": entry}))


def test_memory_is_asked_for_before_it_is_taken(device: Device) -> None:
    huge = ModelCard(name="huge", parameters=10**13, dtype="float32")
    verdict = OpenVinoBackend().verdict(EMBED, huge, [device])
    assert verdict.answer == "no"
    assert "GiB" in verdict.reason


def test_two_devices_are_refused(device: Device, context: Callable[..., LoadContext]) -> None:
    assert OpenVinoBackend().verdict(EMBED, ModelCard(name="m"), [device, device]).answer == "no"


# -------------------------------------------------------------------------------------------------------- dtype = "fast"


def test_fast_is_the_faster_type_where_it_answers_alike(load: Callable, context: Callable, tmp_path: Path) -> None:
    folder = tiny_bert(tmp_path / "bert")
    runner = load(folder, EMBED, dtype="fast")
    if "bfloat16" not in context(folder, EMBED).devices[0].dtypes:
        assert runner.facts["calibration"] == "float32 is the fastest type here"
        return
    assert runner.facts["dtype"] == "bfloat16"
    assert re.fullmatch(r"bfloat16 passed: cosine 0\.999\d+|bfloat16 passed: cosine 1\.0+", runner.facts["calibration"])
    exact = load(folder, EMBED, dtype="float32").submit("main", batch()).result(60)["embedding"]
    quick = runner.submit("main", batch()).result(60)["embedding"]
    assert (exact * quick).sum(-1).min() >= 0.999


def test_fast_stays_with_the_checkpoints_type_where_answers_differ(
    load: Callable, context: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tiny_bert(tmp_path / "bert")
    if "bfloat16" not in context(folder, EMBED).devices[0].dtypes:
        pytest.skip("this processor has one type")
    monkeypatch.setattr("modelport_backend_openvino.runner.agree", lambda before, after: (False, "cosine 0.5"))
    runner = load(folder, EMBED, dtype="fast")
    assert (runner.facts["dtype"], runner.facts["calibration"]) == ("float32", "bfloat16 failed: cosine 0.5")
    exact = load(folder, EMBED, dtype="float32").submit("main", batch()).result(60)["embedding"]
    np.testing.assert_array_equal(runner.submit("main", batch()).result(60)["embedding"], exact)
