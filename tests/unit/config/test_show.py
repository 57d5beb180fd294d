"""What `modelport config show` prints."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from modelport.core.config.load import load
from modelport.core.config.show import describe, show, toml_text


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_every_key_is_shown_with_where_it_was_set(tmp_path: Path) -> None:
    file = tmp_path / "m.toml"
    file.write_text('[models."org/m"]\nsource = "a/b"\n')

    keys = {key.key: key for key in show(load(file, {"MODELPORT_PORT": "1"}, {"strict": True}))}

    assert (keys["server.port"].value, keys["server.port"].origin, keys["server.port"].place) == (1, "env", "MODELPORT_PORT")
    assert (keys["strict"].value, keys["strict"].origin) == (True, "flag")
    assert (keys['models."org/m".source'].origin, keys['models."org/m".source'].place) == ("file", str(file))
    assert (keys["server.host"].value, keys["server.host"].origin) == ("127.0.0.1", "default")


def test_every_key_has_a_help_text_a_type_and_a_variable() -> None:
    keys = {key.key: key for key in describe()}

    assert keys["server.port"].help == "Port to bind; 0 picks a free one."
    assert keys["server.port"].takes == "a whole number from 0 to 65535"
    assert keys["models.NAME.source"].variable == "MODELPORT_MODELS__NAME__SOURCE"
    assert keys["limits.queue_items"].default == 512
    assert [key.key for key in keys.values() if not key.help] == []


@pytest.mark.parametrize(
    "value",
    [True, False, 8000, 0.9, float("inf"), 'a "quoted" \\ line\nand ü', [], ["a", "b"], {}, [{"a": True, "b c": [1]}]],
    ids=repr,
)
def test_a_value_is_shown_as_a_file_would_have_it(value: Any) -> None:
    assert tomllib.loads(f"value = {toml_text(value)}")["value"] == value


def test_a_key_without_a_default_says_what_happens_without_it() -> None:
    silent = [key.key for key in describe() if key.default is None and not ("without" in key.help or "by default" in key.help)]

    assert silent == ["models.NAME.source"]  # which is needed


def test_every_help_text_stands_alone() -> None:
    assert [key.key for key in describe() if "above" in key.help.lower() or not key.help.endswith(".")] == []
