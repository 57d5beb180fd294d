"""What somebody tries in the first ten minutes, and what they are told when it does not work."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from .conftest import EMBED


def modelport(*args: str, env: dict[str, str] | None = None, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    """Runs the command line and returns what it printed."""
    return subprocess.run(
        [sys.executable, "-m", "modelport", *args],
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
        env=os.environ | {"HF_HUB_OFFLINE": "1"} | (env or {}),
    )


def test_serve_with_nothing_configured_listens_and_says_what_to_type(serve):
    server = serve()
    assert server.client.get("/health/live").status_code == 200
    assert server.client.get("/v1/models").json()["object"] == "list"
    server.until(lambda: any("modelport serve" in line for line in server.log))


def test_unknown_key_is_named_with_the_nearest_valid_one(tmp_path):
    config = tmp_path / "modelport.toml"
    config.write_text('[server]\nprot = 1\n[models.a]\nsource = "x"\nalias = ["b"]\ndtype = 3\n')
    done = modelport("serve", "--config", str(config))
    assert done.returncode == 2
    for words in ("server.prot", "port", "models.a.alias", "aliases", "models.a.dtype"):
        assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_misspelt_folder_is_one_sentence(serve):
    server = serve('[models.nowhere]\nsource = "./no/such/folder"\n')
    response = server.client.post("/v1/embeddings", json={"model": "nowhere", "input": "x"})
    assert response.status_code == 503
    assert "no/such/folder" in response.json()["error"]["message"]


def test_hub_id_that_is_not_cached_offline_says_what_to_do(serve):
    server = serve('offline = true\n[models.far]\nsource = "nobody/nothing-at-all"\n')
    response = server.client.post("/v1/embeddings", json={"model": "far", "input": "x"})
    assert response.status_code == 503
    message = response.json()["error"]["message"]
    assert "nobody/nothing-at-all" in message
    assert "offline" in message


@pytest.mark.real
def test_alias_revision_and_limits_are_flags_of_serve(demo, serve):
    server = serve("", f"small={EMBED}", "--alias", "tiny", "--max-length", "64", "--dtype", "float32", "--backend", "cpu")
    answer = server.client.post("/v1/embeddings", json={"model": "tiny", "input": "hello"}).json()
    assert answer["model"] in {"small", "tiny"}
    long = server.client.post("/v1/embeddings", json={"model": "small", "input": "word " * 100})
    assert long.status_code == 400
    assert "64" in long.json()["error"]["message"]


@pytest.mark.real
def test_run_answers_one_request_without_a_server(demo):
    done = modelport("run", str(EMBED), "--json", '{"inputs": "hello"}')
    assert done.returncode == 0, done.stderr
    assert "embeddings" in done.stdout


@pytest.mark.real
def test_explain_shows_the_decision_with_its_reasons(demo):
    done = modelport("explain", str(EMBED))
    assert done.returncode == 0, done.stderr
    for words in ("cpu", "text_embedding", "float32"):
        assert words in done.stdout


@pytest.mark.parametrize("command", "serve run plugins models hardware explain bench keys config doctor demo".split())
def test_every_command_has_help_with_an_example(command):
    done = modelport(command, "--help")
    assert done.returncode == 0
    assert f"modelport {command}" in done.stdout
    assert "xample" in done.stdout
