from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import modelport_backend_cpu as plugin
from modelport.contract import (
    ArraySpec,
    Device,
    Forward,
    Generate,
    GenerateRequest,
    LoadContext,
    ModelCard,
    Output,
    Program,
    Sampling,
)
from modelport.testing import checkpoints
from modelport_backend_cpu.backend import CpuBackend


@pytest.fixture(scope="module")
def device() -> Device:
    return CpuBackend().probe().devices[0]


def context(folder: Path, program: Program, device: Device, **rest: object) -> LoadContext:
    config = json.loads((folder / "config.json").read_text())
    card = ModelCard(name="tiny", path=str(folder), model_type=config["model_type"], config=config, context_length=256)
    return LoadContext(card=card, program=program, checkpoints={"main": folder}, devices=(device,), **rest)  # type: ignore[arg-type]


def test_plugin_registers_one_backend_named_as_its_entry_point() -> None:
    (backend,) = plugin.register_backends()
    assert backend.name == "cpu"
    assert backend.imports_torch
    assert backend.preload, "a spare worker has something to import"
    for name in backend.preload:
        importlib.import_module(name)
    assert plugin.MODELPORT_CONTRACT == "1.0"


def test_importing_and_probing_need_neither_torch_nor_transformers() -> None:
    code = (
        "import sys, modelport_backend_cpu as p; p.register_backends()[0].probe();"
        "sys.exit(bool({'torch', 'transformers'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_probe_finds_one_device_with_this_machines_cores_and_memory(device: Device) -> None:
    assert device.id == "cpu:0"
    assert device.memory_total_bytes >= device.memory_free_bytes > 0
    assert device.dtypes[0] == "float32"
    assert device.properties["cores"] >= 1


def test_threads_are_those_that_were_asked_for(tmp_path: Path, device: Device) -> None:
    folder = checkpoints.tiny_bert(tmp_path / "bert")
    entry = Forward(
        head="feature-extraction", inputs=(ArraySpec("input_ids"),), outputs=(Output("hidden", source="last_hidden_state"),)
    )
    runner = CpuBackend().load(context(folder, Program({"main": entry}), device, threads=1), lambda what, fraction: None)
    assert torch.get_num_threads() == 1
    assert runner.facts["threads"] == "1"
    assert runner.submit("main", {"input_ids": np.array([[2, 9, 3]])}).result()["hidden"].shape == (1, 3, 32)
    runner.close()


def test_generation_runs_on_the_host(tmp_path: Path, device: Device) -> None:
    folder = checkpoints.tiny_llama(tmp_path / "llama")
    runner = CpuBackend().load(context(folder, Program({"main": Generate()}), device, max_length=64), lambda what, fraction: None)
    engine = runner.engine("main")
    engine.add(
        GenerateRequest(id=1, inputs={"input_ids": np.array([9, 8, 7])}, params=Sampling(max_new_tokens=5, ignore_eos=True))
    )
    tokens: list[int] = []
    while engine.load().running or engine.load().waiting:
        for event in engine.step():
            tokens += event.tokens
    assert len(tokens) == 5
    assert runner.limits.max_length == 64
    runner.close()
