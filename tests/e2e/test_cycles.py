"""Loading and unloading for a long time: everything comes back, and no request is lost."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import psutil
import pytest
from safetensors.numpy import save_file

from modelport.testing.fake_network import write_tiny_network

from .conftest import EMBED, Server
from .plugins import install

BACKEND = """
from modelport import hookimpl
from modelport.testing.fakes import NumpyBackend
MODELPORT_CONTRACT = "1.0"

@hookimpl
def register_backends():
    return [NumpyBackend()]
"""
SKILL = """
from modelport import hookimpl
from modelport.testing.fake_skills import Pairs
MODELPORT_CONTRACT = "1.0"

@hookimpl
def register_skills():
    return [Pairs()]
"""


class Footprint:
    """What the server and its children hold of the system."""

    def __init__(self, server: Server) -> None:
        main = psutil.Process(server.process.pid)
        children = main.children(recursive=True)
        self.zombies = sum(child.status() == psutil.STATUS_ZOMBIE for child in children)
        self.processes = len(children)
        self.descriptors, self.threads = main.num_fds(), main.num_threads()
        self.memfds = sum(file.path.startswith("/memfd:") for file in main.open_files())
        self.files = len(list(Path(main.environ()["TMPDIR"]).glob("modelport*")))
        self.resident_bytes = sum(p.memory_info().rss for p in (main, *children))

    def assert_no_more_than(self, start: Footprint, slack_bytes: int) -> None:
        for name in ("zombies", "processes", "memfds", "files"):
            assert getattr(self, name) <= getattr(start, name), name
        # a connection or a pool thread may be there at one reading and not at another
        assert self.descriptors <= start.descriptors + 2
        assert self.threads <= start.threads + 2
        assert self.resident_bytes <= start.resident_bytes + slack_bytes


def cycle(server: Server, request: dict, cycles: int, warm: int, slack_bytes: int) -> None:
    """Asks two models in turn under a budget that holds one; each answer evicts the other model."""
    answers: Counter[str] = Counter()
    start = None
    for turn in range(cycles):
        for name in ("first", "second"):
            response = server.client.post(f"/v1/infer/{name}", json=request)
            assert response.status_code == 200, response.text
            answers[name] += 1
        server.until(lambda: len(server.workers) == 1)
        if turn == warm:
            start = Footprint(server)
    assert start is not None
    Footprint(server).assert_no_more_than(start, slack_bytes)
    assert answers == {"first": cycles, "second": cycles}
    assert server.metric("modelport_model_load_seconds_count") == 2 * cycles


def test_a_hundred_and_ninety_loads_through_real_processes_leave_nothing_behind(tmp_path, serve):
    env = install(tmp_path / "site", "backends", "fake-numpy", BACKEND) | {"TMPDIR": str(tmp_path)}
    install(tmp_path / "site", "skills", "fake-pairs", SKILL)
    models = ""
    for seed, name in enumerate(("first", "second")):
        folder = write_tiny_network(tmp_path / name, seed)
        save_file({"unused": np.zeros(1, np.float32)}, folder / "model.safetensors")
        models += f'[models.{name}]\nsource = "{folder}"\nbackend = "fake-numpy"\n'
    server = serve(f"spare = 0\n[memory]\nbudget_bytes = {{ fake-numpy = 1500000 }}\n{models}", env=env)
    cycle(server, {"text": [1, 2, 3], "labels": [[4], [5]]}, cycles=95, warm=10, slack_bytes=24_000_000)


@pytest.mark.real
def test_torch_models_that_take_turns_leave_nothing_behind(demo, serve, tmp_path):
    models = "".join(f'[models.{name}]\nsource = "{EMBED}"\n' for name in ("first", "second"))
    server = serve(f"spare = 0\n[memory]\nbudget_bytes = {{ cpu = 600000000 }}\n{models}", env={"TMPDIR": str(tmp_path)})
    cycle(server, {"inputs": "hello"}, cycles=5, warm=1, slack_bytes=80_000_000)
