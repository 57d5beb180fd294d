"""Where models run: with two real backends, and while real processes come and go."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from safetensors.numpy import save_file

from modelport.testing.checkpoints import tiny_bert
from modelport.testing.fake_network import write_tiny_network

from .plugins import backend, install, skill


@pytest.fixture
def explain(tmp_path):
    """What `modelport explain` says of a tiny model, under a configuration."""
    folder = tmp_path / "tiny"
    tiny_bert(folder)
    state = {"MODELPORT_STATE_DIR": str(tmp_path / "state")}

    def ask(config: str = "", model: str = "", *args: str) -> dict:
        file = tmp_path / "modelport.toml"
        file.write_text(f'{config}\n[models.m]\nsource = "{folder}"\n{model}')
        command = [sys.executable, "-m", "modelport", "explain", "m", "--config", str(file), "--json", *args]
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ | state, check=True)
        return json.loads(done.stdout)["placements"][0]

    return ask


def places(record: dict) -> dict[str, int | None]:
    return {candidate["backend"]: candidate["place"] for candidate in record["candidates"] if candidate["devices"]}


def test_explain_shows_every_place_and_the_configuration_is_obeyed(explain):
    both = '[backends."*"]\nenabled = false\n[backends.cpu]\nenabled = true\n[backends.openvino]\nenabled = true'
    assert places(explain(both)) == {"cpu": 1, "openvino": 2}
    assert places(explain(both, 'backends = ["openvino", "cpu"]')) == {"openvino": 1, "cpu": 2}
    chosen = explain(both, 'backend = "openvino"')
    assert places(chosen) == {"openvino": 1, "cpu": None}
    assert "'openvino' was asked for" in chosen["decision"]
    (reason,) = [candidate["reason"] for candidate in chosen["candidates"] if candidate["backend"] == "cpu"]
    assert reason == "'openvino' was asked for, and this is another"
    for candidate in explain(both)["candidates"]:
        assert candidate["memory_bytes"] > 0
        assert candidate["reason"]


def test_a_disabled_backend_is_nowhere(explain, serve):
    alone = 'backends = ["cpu"]\n'
    assert places(explain(alone)) == {"cpu": 1}
    server = serve(alone)
    assert [each["backend"] for each in server.client.get("/v1/hardware").json()["backends"]] == ["cpu"]
    states = {each["name"]: each["state"] for each in server.client.get("/v1/plugins").json()["plugins"]}
    assert states["openvino"] == "disabled"


def test_fifty_steps_on_real_processes_stay_within_the_budget_and_lose_nothing(tmp_path, serve):
    plugins = tmp_path / "plugins"
    install(plugins, "backends", "fake-numpy", backend("fakes", "NumpyBackend"))
    env = install(plugins, "skills", "fake-pairs", skill("fake_skills", "Pairs"))
    folder = write_tiny_network(tmp_path / "tiny")
    save_file({"none": np.zeros(1, np.float32)}, folder / "model.safetensors")
    models = "".join(f'[models.{name}]\nsource = "{folder}"\nskill = "fake-pairs"\n' for name in "abcd")
    budget = 12 << 20  # two of them: the first load shows that the estimate of 1 MiB is too small
    config = f"""
    spare = 0
    backends = ["fake-numpy"]
    [memory]
    budget_bytes = {{ "fake-numpy" = {budget} }}
    """
    server = serve(config + models, env=env)
    right = None
    walk = random.Random(5)

    def ask(model: str):
        return server.client.post(f"/v1/infer/{model}", json={"text": [5, 7], "labels": [[1], [2, 3]]})

    with ThreadPoolExecutor(4) as callers:
        for _ in range(50):
            model = walk.choice("abcd")
            match walk.choice(["ask", "ask", "twice", "unload", "kill"]):
                case "ask":
                    answers = [ask(model)]
                case "twice":
                    answers = [*callers.map(ask, (model, model))]
                case "unload":
                    assert server.client.post(f"/v1/models/{model}/unload").status_code == 200
                    answers = []
                case "kill":
                    for pid in server.client.get(f"/v1/models/{model}/placement").json().get("processes", []):
                        os.kill(pid, 9)
                    answers = []
            for answer in answers:
                assert answer.status_code == 200, answer.text
                right = right or answer.json()["result"]
                assert answer.json()["result"] == right
            (device,) = server.client.get("/v1/hardware").json()["backends"][0]["devices"]
            assert device["models_bytes"] <= budget
    assert any("to make room" in line for line in server.log)
    server.until(lambda: len(server.workers) == sum(len(_processes(server, model)) for model in "abcd"))


def _processes(server, model: str) -> list[int]:
    return server.client.get(f"/v1/models/{model}/placement").json().get("processes", [])
