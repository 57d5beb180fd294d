"""Commands as users type them, in a process of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture
def modelport(tmp_path: Path):
    """Runs `modelport …` in an empty folder, with its own state."""

    def run(*arguments: str, status: int = 0, **variables: str) -> subprocess.CompletedProcess[str]:
        env = {key: value for key, value in os.environ.items() if not key.startswith("MODELPORT_")}
        env |= {"MODELPORT_STATE_DIR": str(tmp_path / "state"), "MODELPORT_CACHE_DIR": str(tmp_path / "cache"), **variables}
        command = [sys.executable, "-m", "modelport", *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == status, f"status {done.returncode}: {done.stdout}{done.stderr}"
        assert "Traceback" not in done.stderr
        return done

    return run


def test_a_key_is_shown_once_listed_without_its_secret_and_revoked(modelport) -> None:
    key = modelport("keys", "create", "alice", "--scope", "admin", "--model", "m", "--expires", "30d").stdout.strip()
    (listed,) = json.loads(modelport("keys", "list", "--json").stdout)

    assert key.startswith(f"mp-{listed['id']}-")
    assert key.split("-", 2)[2] not in json.dumps(listed)
    assert (listed["name"], listed["state"], listed["scopes"], listed["models"]) == ("alice", "active", ["admin"], ["m"])

    modelport("keys", "revoke", listed["id"])
    assert json.loads(modelport("keys", "list", "--json").stdout)[0]["state"] == "revoked"


def test_a_key_that_does_not_exist_cannot_be_revoked(modelport) -> None:
    assert "There is no key 'nope'" in modelport("keys", "revoke", "nope", status=2).stderr


@pytest.mark.parametrize("when", ["tomorrow", "2001-01-01", "0d"])
def test_an_expiry_that_is_no_future_time_is_refused(modelport, when: str) -> None:
    assert modelport("keys", "create", "x", "--expires", when, status=2).stderr.startswith("modelport: ")


def test_every_fault_of_the_configuration_is_named_and_the_status_is_two(modelport, tmp_path: Path) -> None:
    (tmp_path / "modelport.toml").write_text('[server]\nprot = 1\nport = "x"\n')

    said = modelport("config", "show", status=2).stderr

    assert "server.prot" in said
    assert "server.port" in said


def test_config_show_says_where_each_key_was_set(modelport, tmp_path: Path) -> None:
    (tmp_path / "modelport.toml").write_text('log_level = "debug"\n')

    shown = {key["key"]: key for key in json.loads(modelport("config", "show", "--json", MODELPORT_SERVER__PORT="8123").stdout)}

    assert (shown["log_level"]["origin"], shown["server.port"]["origin"]) == ("file", "env")
    assert shown["server.port"]["value"] == 8123


def test_config_show_keys_is_the_reference(modelport) -> None:
    keys = {key["key"]: key for key in json.loads(modelport("config", "show", "--keys", "--json").stdout)}

    assert keys["server.port"]["help"]
    assert keys["models.NAME.source"]["variable"] == "MODELPORT_MODELS__NAME__SOURCE"


def test_demo_list_fetches_nothing(modelport, tmp_path: Path) -> None:
    listed = json.loads(modelport("demo", "--list", "--json", "--dir", str(tmp_path / "demo")).stdout)

    assert [(model["name"], model["complete"]) for model in listed] == [
        ("smollm2-135m-instruct", False),
        ("all-minilm-l6-v2", False),
    ]
    assert not (tmp_path / "demo").exists()


def test_an_unknown_demo_model_is_a_usage_error_that_lists_them(modelport) -> None:
    assert "all-minilm-l6-v2" in modelport("demo", "nope", status=2).stderr


def test_an_unknown_command_is_a_usage_error(modelport) -> None:
    assert "No such command" in modelport("sevre", status=2).stderr


def test_a_model_flag_without_a_model_says_so(modelport) -> None:
    assert "--dtype says how to serve a model" in modelport("serve", "--dtype", "float32", status=2).stderr


def test_remote_code_without_a_revision_is_refused(modelport) -> None:
    said = modelport("serve", "org/model", "--trust-remote-code", status=2).stderr

    assert "trust_remote_code" in said
    assert "revision" in said


def test_a_plugin_that_is_not_installed_is_named(modelport) -> None:
    assert "There is no plugin 'nope'" in modelport("plugins", "check", "nope", status=2).stderr


def test_python_dash_m_and_the_version(modelport) -> None:
    assert modelport("--version").stdout.startswith("modelport, version 0.1.0")
