"""What `modelport config show` prints."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelport.core.config.load import load
from modelport.core.config.show import describe, show


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
