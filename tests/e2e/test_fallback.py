"""A backend that goes wrong, under a real server: traffic moves on, answers stay right, and the record says why."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from safetensors.numpy import save_file

from modelport.testing.fake_network import write_tiny_network

from .plugins import backend, install, skill


@pytest.fixture
def start(tmp_path, serve):
    """A server with a tiny model on the faulty backend, with another beside it."""

    def begin(model: str = "", limits: str = "", **options: object):
        plugins = tmp_path / "plugins"
        install(plugins, "backends", "fake-faulty", backend("faulty", "FaultyBackend"))
        install(plugins, "backends", "fake-numpy", backend("fakes", "NumpyBackend"))
        env = install(plugins, "skills", "fake-pairs", skill("fake_skills", "Pairs"))
        folder = write_tiny_network(tmp_path / "tiny")
        save_file({"none": np.zeros(1, np.float32)}, folder / "model.safetensors")  # its weights follow from its configuration
        lines = "\n".join(f"{key} = {value!r}".replace("'", '"') for key, value in options.items())
        config = f"""
        spare = 0
        backends = ["fake-faulty", "fake-numpy"]
        [limits]
        {limits}
        [models.tiny]
        source = "{folder}"
        skill = "fake-pairs"
        {model}
        [models.tiny.backend_options]
        {lines}
        [models.good]
        source = "{folder}"
        skill = "fake-pairs"
        backend = "fake-numpy"
        """
        return serve(config, env=env)

    return begin


def ask(server, model: str = "tiny", text: int = 5):
    return server.client.post(f"/v1/infer/{model}", json={"text": [text, 7], "labels": [[1], [2, 3], [4]]})


def placement(server):
    return server.client.get("/v1/models/tiny/placement").json()


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        ("refuse", "refuses to hold any model today"),
        ("oom", "times in a row, the last with: The device ran out of memory"),
        ("nan", "times in a row, the last with: The device computed NaN"),
        ("lost", "1 times in a row, the last with: The device has fallen off the bus"),
    ],
)
def test_traffic_moves_on_and_every_answer_is_right(start, fault, why):
    server = start(fault=fault, after=0 if fault == "refuse" else 4)
    with ThreadPoolExecutor(8) as callers:
        answers = list(callers.map(lambda text: ask(server, text=text), range(24)))
    # However few batches the crowd made, these are one each: more than the good ones and the bad ones that it takes.
    answers += [ask(server, text=text) for text in range(24, 32)]
    assert {answer.status_code for answer in answers} == {200}
    for text, answer in enumerate(answers):
        right = ask(server, "good", text).json()["result"]
        np.testing.assert_allclose(answer.json()["result"]["scores"], right["scores"], rtol=1e-5)
    record = placement(server)
    assert record["backend"] == "fake-numpy"
    assert why in record["decision"]
    assert server.metric("modelport_fallbacks_total", model="tiny", backend="fake-numpy") == 1


def test_a_batch_without_room_is_halved_and_nobody_notices(start):
    server = start(fault="oom", room=2)
    answer = ask(server)  # three items, so three at least in one batch
    assert answer.status_code == 200
    assert placement(server)["backend"] == "fake-faulty"
    assert server.metric("modelport_device_failures_total") == 0
    assert answer.json()["result"]["scores"] == pytest.approx(ask(server, "good").json()["result"]["scores"])


@pytest.mark.parametrize("fault", ["die", "hang"])
def test_a_worker_that_dies_or_hangs_again_and_again_is_given_up_for_another_place(start, fault):
    server = start(fault=fault, limits="stuck_s = 1.0")
    answers = [ask(server) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [500, 500, 500, 200]
    assert placement(server)["backend"] == "fake-numpy"
    assert "its worker died 3 times" in placement(server)["decision"]


def test_under_strict_the_caller_gets_the_error(start):
    server = start("strict = true", fault="nan")
    answer = ask(server)
    assert answer.status_code == 503
    assert "computed NaN" in answer.json()["error"]["message"]
    assert placement(server)["backend"] == "fake-faulty"


def test_who_takes_more_memory_than_it_said_is_charged_for_it(start):
    server = start(fault="lie")
    assert ask(server).status_code == 200
    record = placement(server)
    assert record["memory_estimate_bytes"] == 1 << 20
    assert record["memory_measured_bytes"] > 90 << 20
    (device,) = [
        d for b in server.client.get("/v1/hardware").json()["backends"] if b["backend"] == "fake-faulty" for d in b["devices"]
    ]
    assert device["models_bytes"] == record["memory_measured_bytes"]
