"""`[NAME=]SOURCE[@REV]` and the flags that go with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelport.contract.errors import ConfigurationError
from modelport.core.cli.sources import model_flags, models_of, named


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


def test_model_flags_apply_to_every_source() -> None:
    models = models_of(["a=org/a", "b=org/b"], model_flags(dtype="float32", preload=True))

    assert models == {
        "a": {"source": "org/a", "dtype": "float32", "preload": True},
        "b": {"source": "org/b", "dtype": "float32", "preload": True},
    }


def test_model_flags_without_a_source_are_refused_naming_the_flag() -> None:
    with pytest.raises(ConfigurationError, match=r"--alias says.*Add a SOURCE"):
        models_of([], model_flags(alias=("x",)))


def test_an_alias_for_two_sources_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="--alias names one model"):
        models_of(["org/a", "org/b"], model_flags(alias=("x",)))


@pytest.mark.parametrize(
    ("backend", "device", "expected"),
    [
        (None, "cuda:1", "cuda:1"),
        ("cuda", "1", "cuda:1"),
        ("cuda", "cuda:1", "cuda:1"),
        ("cpu", None, "cpu"),
        (None, "cpu", "cpu"),
    ],
)
def test_backend_and_device_make_one_key(backend: str | None, device: str | None, expected: str) -> None:
    assert model_flags(backend=backend, device=device)["backend"] == expected


@pytest.mark.parametrize(("backend", "device"), [(None, "1"), ("cpu", "cuda:0")])
def test_a_device_that_no_backend_explains_is_refused(backend: str | None, device: str) -> None:
    with pytest.raises(ConfigurationError, match="--device"):
        model_flags(backend=backend, device=device)
