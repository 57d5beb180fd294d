"""Commands as users type them, in a process of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


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


def test_config_show_prints_what_a_file_takes(modelport, tmp_path: Path) -> None:
    (tmp_path / "modelport.toml").write_text('strict = true\noffline = false\nlog_level = "debug"\n')

    rows = [line.split("\t")[:2] for line in modelport("config", "show").stdout.splitlines()]
    shown = {key["key"]: key["value"] for key in json.loads(modelport("config", "show", "--json").stdout)}

    assert {("strict", "true"), ("offline", "false"), ("log_level", '"debug"')} <= set(map(tuple, rows))
    assert (shown["strict"], shown["offline"], shown["log_level"]) == (True, False, "debug")


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


def test_demo_all_has_a_model_of_every_further_kind(modelport, tmp_path: Path) -> None:
    listed = json.loads(modelport("demo", "--all", "--list", "--json", "--dir", str(tmp_path / "demo")).stdout)

    assert {"image-classification", "token-classification", "text2text-generation"} <= {model["task"] for model in listed}


def test_an_unknown_demo_model_is_a_usage_error_that_lists_them(modelport) -> None:
    assert "all-minilm-l6-v2" in modelport("demo", "nope", status=2).stderr


def test_an_unknown_command_is_a_usage_error(modelport) -> None:
    assert "No such command" in modelport("sevre", status=2).stderr


def test_a_model_flag_without_a_model_says_so(modelport) -> None:
    assert "dtype would say how to serve a model, and none is named" in modelport("serve", "--dtype", "float32", status=2).stderr


def test_remote_code_without_a_revision_is_refused(modelport) -> None:
    said = modelport("serve", "org/model", "--trust-remote-code", status=2).stderr

    assert "trust_remote_code" in said
    assert "revision" in said


@pytest.mark.parametrize("word", ["serv", "modles"])
def test_a_misspelt_command_is_told_which_was_meant(modelport, word: str) -> None:
    meant = {"serv": "serve", "modles": "models"}[word]

    assert f"No such command '{word}'. Did you mean '{meant}'?" in modelport(word, status=2).stderr


@pytest.mark.parametrize("command", [["serve"], ["run"], ["explain"], ["models", "inspect"]], ids=" ".join)
def test_a_folder_that_is_not_there_is_one_sentence(modelport, tmp_path: Path, command: list[str]) -> None:
    said = modelport(*command, "./nothere", status=2).stderr

    assert said == f"modelport: The folder {tmp_path}/nothere does not exist. Correct it, or give a Hub id (org/model).\n"


def test_no_name_at_all_is_no_model(modelport) -> None:
    assert "An empty text names no model" in modelport("explain", "", status=2).stderr


@pytest.mark.parametrize("command", [["serve"], ["run"], ["explain"]], ids=" ".join)
def test_a_backend_that_is_not_installed_is_named(modelport, tmp_path: Path, command: list[str]) -> None:
    (tmp_path / "m").mkdir()

    said = modelport(*command, "./m", "--backend", "abacus", status=2).stderr

    assert "models.m.backend is 'abacus', and there is no such backend; try pip install modelport-backend-abacus" in said


def test_a_length_of_zero_is_refused_and_not_overlooked(modelport, tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()

    assert (
        "models.m.max_length: expected a whole number over 0, got 0"
        in modelport("run", "./m", "--max-length", "0", status=2).stderr
    )


def test_a_state_folder_that_is_a_file_is_a_problem(modelport, tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    findings = {
        each["check"]: each for each in json.loads(modelport("doctor", "--json", status=1, MODELPORT_STATE_DIR="file").stdout)
    }

    assert findings["state"]["state"] == "problem"
    assert "cannot be written" in findings["state"]["detail"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is always full is Linux's")
def test_a_full_disk_is_one_sentence(tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "modelport", "config", "show", "--keys"]
        done = subprocess.run(command, cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, text=True, check=False)

    assert (done.returncode, done.stderr) == (2, "modelport: No space left on device.\n")


def test_python_dash_m_and_the_version(modelport) -> None:
    assert modelport("--version").stdout.startswith("modelport, version 0.1.0")
