"""Sources and folders."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelport.core.config.paths import cache_dir, state_dir
from modelport.core.config.settings import Settings
from modelport.core.config.source import Source, parse_source


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("org/model", Source("hub", "org/model")),
        ("gpt2", Source("hub", "gpt2")),
        ("org/model@v1.0", Source("hub", "org/model", "v1.0")),
        ("hf_bert", Source("family", "hf_bert")),
        ("hf_xlm-roberta", Source("family", "hf_xlm-roberta")),
        ("skill:shout", Source("skill", "shout")),
        ("s3://bucket/model", Source("other", "s3://bucket/model")),
        ("llama:7b", Source("other", "llama:7b")),
        ("/models/x", Source("folder", "/models/x")),
    ],
)
def test_source_is_understood(text: str, expected: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    assert parse_source(text) == expected


def test_folder_that_exists_wins_over_a_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "org" / "model").mkdir(parents=True)

    assert parse_source("org/model") == Source("folder", str(tmp_path / "org" / "model"))


def test_revision_of_the_configuration_wins_over_the_one_in_the_source() -> None:
    assert parse_source("org/model@a", "b").revision == "b"


def test_folders_follow_the_xdg_variables() -> None:
    env = {"XDG_CACHE_HOME": "/c", "XDG_STATE_HOME": "/s"}

    assert cache_dir(Settings(), env) == Path("/c/modelport")
    assert state_dir(Settings(), env) == Path("/s/modelport")


def test_folders_lie_in_the_home_by_default() -> None:
    assert cache_dir(Settings(), {}) == Path.home() / ".cache/modelport"
    assert state_dir(Settings(), {"XDG_STATE_HOME": "relative"}) == Path.home() / ".local/state/modelport"


def test_folders_of_the_configuration_win() -> None:
    assert cache_dir(Settings(cache_dir="/x"), {"XDG_CACHE_HOME": "/c"}) == Path("/x")
    assert state_dir(Settings(state_dir="~/y"), {}) == Path.home() / "y"
