"""The engine with a plugin that is really installed: a distribution on the path, a worker in a process of its own."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import psutil
import pytest

from modelport import Engine
from modelport.client import Client
from modelport.contract import ConfigurationError, InvalidRequest, ModelportError, NotFound

PLUGIN = """
import os
import msgspec
from modelport import hookimpl
from modelport.contract import Claim, Session, Skill, Task

MODELPORT_CONTRACT = "1.0"

class ShoutRequest(msgspec.Struct):
    text: str

class ShoutResult(msgspec.Struct):
    text: str
    pid: int = 0

class Piece(msgspec.Struct):
    text: str

def join(pieces):
    return ShoutResult("".join(piece.text for piece in pieces))

class ShoutSession(Session):
    async def handle(self, request, run):
        if request.text == "raise":
            raise KeyError("a defect")
        if not run.stream:
            yield ShoutResult(request.text.upper(), os.getpid())
            return
        for letter in request.text.upper():
            yield Piece(letter)

class Shout(Skill):
    name = "shout_test"
    tasks = (Task("shout-test", ShoutRequest, ShoutResult, Piece, join, lambda a, b: Piece(a.text + b.text)),)

    def claim(self, card):
        return Claim(("shout-test",), 100, "asked for") if card.source == "skill:shout_test" else None

    def session(self, context):
        return ShoutSession(context)

@hookimpl
def register_skills():
    return [Shout()]
"""


@pytest.fixture(autouse=True)
def installed(tmp_path, monkeypatch):
    site = tmp_path / "site"
    info = site / "modelport_skill_shout_test-0.1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: modelport-skill-shout-test\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text("[modelport.skills]\nshout_test = modelport_skill_shout_test\n")
    (site / "modelport_skill_shout_test.py").write_text(PLUGIN)
    config = tmp_path / "modelport.toml"
    config.write_text(
        f'backends = []\nskills = ["shout_test"]\nstate_dir = "{tmp_path}"\n[models.loud]\nsource = "skill:shout_test"\n'
    )
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv("PYTHONPATH", str(site))
    monkeypatch.setenv("MODELPORT_CONFIG", str(config))


def test_a_request_runs_in_a_process_of_its_own_that_is_gone_after_close():
    with Engine() as engine:
        reply = engine.run("shout-test", "loud", {"text": "hello"})
        assert (reply.result.text, reply.model) == ("HELLO", "loud")
        assert reply.result.pid != os.getpid()
        assert [(info.id, info.state) for info in engine.models] == [("loud", "ready")]
    assert not psutil.pid_exists(reply.result.pid)
    assert not [thread for thread in threading.enumerate() if thread.name == "modelport-engine"]


def test_a_model_may_stay_in_this_process():
    with Engine(executor="thread") as engine:
        assert engine.run("shout-test", "loud", {"text": "hello"}).result.pid == os.getpid()


def test_streams_can_be_read_and_left():
    with Engine(executor="thread") as engine:
        assert "".join(piece.text for piece in engine.stream("shout-test", "loud", {"text": "hello"})) == "HELLO"
        for piece in engine.stream("shout-test", "loud", {"text": "long " * 100}):
            assert piece.text
            break
        assert engine.run("shout-test", "loud", {"text": "on"}).result.text == "ON"


def test_sources_are_named_as_on_the_command_line():
    with Engine("louder=skill:shout_test", executor="thread") as engine:
        assert engine.load("louder").state == "ready"
        assert engine.unload("louder").state == "unloaded"
        assert "needs no backend" in engine.placement("louder")["decision"]


def test_every_key_of_a_placement_is_documented():
    with Engine(executor="thread") as engine:
        engine.load("loud")
        placement = engine.placement("loud")
    nested = [*placement["candidates"], *placement["claims"], *placement["attempts"]]
    keys = set(placement).union(*nested)
    assert {key for key in keys if f"`{key}`" not in (Client.placement.__doc__ or "")} == set()


def test_errors_are_those_of_the_contract():
    with Engine(executor="thread") as engine:
        with pytest.raises(NotFound, match="loud"):
            engine.run("shout-test", "lout", {"text": "x"})
        with pytest.raises(InvalidRequest, match="text"):
            engine.run("shout-test", "loud", {"txt": "x"})
        with pytest.raises(InvalidRequest, match="Tasks: shout-test"):
            engine.run("sing", "loud", {"text": "x"})
        with pytest.raises(ModelportError, match="KeyError"):
            engine.run("shout-test", "loud", {"text": "raise"})
    with pytest.raises(ModelportError, match="closed"):
        engine.run("shout-test", "loud", {"text": "x"})
    engine.close()


def test_a_bad_configuration_is_refused_before_anything_starts():
    with pytest.raises(ConfigurationError, match="dtyp"):
        Engine("x=skill:shout_test", dtyp="float32")


@pytest.mark.real
def test_real_models_embed_and_generate(monkeypatch, tmp_path):
    demo = Path(os.environ.get("MODELPORT_DEMO_DIR", "~/.cache/modelport/demo")).expanduser()
    if not (demo / "all-minilm-l6-v2").is_dir():
        pytest.skip("the demo models are not here; `modelport demo` fetches them")
    (tmp_path / "empty.toml").write_text(f'state_dir = "{tmp_path}"\n')
    sources = [f"{name}={demo / name}" for name in ("all-minilm-l6-v2", "smollm2-135m-instruct")]
    with Engine(*sources, config=tmp_path / "empty.toml", dtype="float32", threads=1) as engine:
        vectors = engine.embed("all-minilm-l6-v2", ["A man is eating food.", "Someone eats.", "The stock market fell."])
        assert vectors.shape == (3, 384)
        assert vectors[0] @ vectors[1] > 0.6 > vectors[0] @ vectors[2]
        question = [{"role": "user", "content": "What is the capital of France?"}]
        assert "Paris" in engine.generate("smollm2-135m-instruct", question, max_new_tokens=16, temperature=0.0)
