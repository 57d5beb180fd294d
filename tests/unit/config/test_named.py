"""`[NAME=]SOURCE[@REV]` and the options that go with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelport.contract.errors import ConfigurationError
from modelport.core.config.named import models_of, named


def test_a_hub_id_is_served_under_its_id() -> None:
    assert named("org/model") == ("org/model", "org/model")


def test_a_revision_is_not_part_of_the_name() -> None:
    assert named("org/model@main") == ("org/model", "org/model@main")


def test_a_folder_is_served_under_its_own_name(tmp_path: Path) -> None:
    (tmp_path / "my-model").mkdir()

    assert named(str(tmp_path / "my-model")) == ("my-model", str(tmp_path / "my-model"))


def test_a_folder_named_by_a_dot_has_the_name_it_resolves_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    assert named(".") == ("here", ".")


def test_a_skill_and_a_family_are_served_under_their_names() -> None:
    assert named("skill:shout") == ("shout", "skill:shout")
    assert named("hf_bert") == ("hf_bert", "hf_bert")


def test_a_name_before_the_equals_sign_wins() -> None:
    assert named("chat=org/model@v2") == ("chat", "org/model@v2")
    assert named("loud=skill:shout") == ("loud", "skill:shout")


def test_an_equals_sign_in_a_path_is_part_of_the_path(tmp_path: Path) -> None:
    (tmp_path / "a=b").mkdir()

    with pytest.raises(ConfigurationError, match="NAME=SOURCE"):
        named(str(tmp_path / "a=b"))
    assert named(f"good={tmp_path / 'a=b'}") == ("good", str(tmp_path / "a=b"))


def test_two_sources_of_one_name_are_refused_naming_both(tmp_path: Path) -> None:
    for parent in ("one", "two"):
        (tmp_path / parent / "model").mkdir(parents=True)

    with pytest.raises(ConfigurationError, match=r"one/model.*two/model.*served as 'model'"):
        models_of([str(tmp_path / "one" / "model"), str(tmp_path / "two" / "model")], {})


def test_options_apply_to_every_source() -> None:
    models = models_of(["a=org/a", "b=org/b"], {"dtype": "float32", "preload": True, "task": None})

    assert models == {
        "a": {"source": "org/a", "dtype": "float32", "preload": True},
        "b": {"source": "org/b", "dtype": "float32", "preload": True},
    }


def test_options_without_a_source_are_refused_naming_them() -> None:
    with pytest.raises(ConfigurationError, match=r"dtype and task would say how.*models\.NAME\.dtype"):
        models_of([], {"dtype": "float32", "task": "x", "preload": False})


def test_an_alias_for_two_sources_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="An alias names one model"):
        models_of(["org/a", "org/b"], {"aliases": ["x"]})


def test_an_option_that_is_zero_was_given() -> None:
    assert models_of(["org/a"], {"threads": 0, "keep_alive_s": 0.0, "pin": False}) == {
        "org/a": {"source": "org/a", "threads": 0, "keep_alive_s": 0.0}
    }


@pytest.mark.parametrize("source", ["./nothere", "x=./nothere"])
def test_a_folder_that_does_not_exist_is_refused_at_once(source: str) -> None:
    with pytest.raises(ConfigurationError, match=r"nothere does not exist"):
        models_of([source], {})


def test_an_empty_text_names_no_model() -> None:
    with pytest.raises(ConfigurationError, match="An empty text names no model"):
        named("")
