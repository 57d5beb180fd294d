"""What `serve` says, and what it lets a newcomer do with nothing configured."""

from __future__ import annotations

import json

import pytest

from modelport.core.cli.listening import Announcement, with_families_if_empty
from modelport.core.config.load import load


def test_the_announcement_is_the_line_and_curl_lines_for_demo_models(capsys: pytest.CaptureFixture[str]) -> None:
    Announcement(demo_models=("smollm2-135m-instruct", "all-minilm-l6-v2"))("modelport serving on http://127.0.0.1:8123")

    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "modelport serving on http://127.0.0.1:8123"
    curls = [line.strip() for line in lines if line.strip().startswith("curl ")]
    assert [line.split()[1] for line in curls] == [
        "http://127.0.0.1:8123/v1/chat/completions",
        "http://127.0.0.1:8123/v1/embeddings",
    ]
    for line in curls:
        json.loads(line.split(" -d '", 1)[1].rstrip("'"))


def test_the_announcement_as_json_is_one_object(capsys: pytest.CaptureFixture[str]) -> None:
    Announcement(as_json=True, demo_models=("all-minilm-l6-v2",))("modelport serving on http://127.0.0.1:1")

    assert json.loads(capsys.readouterr().out) == {"event": "serving", "url": "http://127.0.0.1:1"}


def test_with_no_model_families_may_be_asked_for_and_advice_is_given() -> None:
    settings, advice = with_families_if_empty(load(None, {}, {}))

    assert settings.allow_families
    assert "modelport serve --demo" in advice


def test_with_no_model_on_a_public_address_families_stay_closed() -> None:
    settings, advice = with_families_if_empty(load(None, {}, {"server": {"host": "0.0.0.0"}}))

    assert not settings.allow_families
    assert advice


def test_families_that_the_configuration_closed_stay_closed() -> None:
    settings, _ = with_families_if_empty(load(None, {}, {"allow_families": False}))

    assert not settings.allow_families


def test_with_a_model_nothing_is_changed_or_said() -> None:
    loaded = load(None, {}, {"models": {"a": {"source": "org/a"}}})

    assert with_families_if_empty(loaded) == (loaded.settings, "")
