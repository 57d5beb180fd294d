"""A fixed sample of the sweep, over all tasks that the installed skills do, and what has changed since it was verified;
`make sweep` runs the whole of it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelport.core.config.settings import Settings
from modelport.core.plugins.discover import discover

HERE = Path(__file__).resolve().parent
SAMPLE = (HERE / "sample.txt").read_text(encoding="utf-8").split()
HEADS = tomllib.loads((HERE / "tasks.toml").read_text(encoding="utf-8"))


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The sweep's own modules may be imported, and are forgotten afterwards."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(HERE))
    yield
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(HERE)):
            del sys.modules[name]


def test_the_sample_is_served_as_transformers_answers(tmp_path: Path) -> None:
    done = {task.name for skill in discover(Settings(), ["skills"]).skills.values() for task in skill.tasks}
    heads = [head for head, told in HEADS.items() if told["task"] in done]
    file = tmp_path / "results.json"

    run = subprocess.run(
        [sys.executable, str(HERE / "run.py"), "--sample", "--results", str(file), *heads],
        capture_output=True,
        text=True,
        check=False,
    )

    assert file.exists(), run.stdout + run.stderr
    told = json.loads(file.read_text(encoding="utf-8"))["pairs"]
    others = {pair: found["cpu"] for pair, found in told.items() if found["cpu"]["status"] != "verified"}
    assert others == {}
    assert run.returncode == 0, run.stdout + run.stderr
    assert set(told) >= {pair for pair in SAMPLE if pair.partition("/")[2] in heads}
    assert len(told) >= 30


def test_the_sample_is_of_pairs_that_there_are(modules: None) -> None:
    from pairs import all_pairs

    assert set(SAMPLE) <= {pair.name for pair in all_pairs()}
    assert len(SAMPLE) <= 44


def test_a_pair_is_asked_again_when_what_makes_it_has_changed(
    modules: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import results
    from adaptors.image_text_to_text import RECIPES
    from build import OVERRIDES
    from pairs import all_pairs

    text, image, both = names = ("bert/masked-lm", "vit/image-classification", "llava/image-text-to-text")
    pairs = [pair for pair in all_pairs() if pair.name in names]
    found = results.Results(tmp_path / "verified.json")
    for pair in pairs:
        found.record(pair, "cpu", "verified", "")

    def changed() -> set[str]:
        results.recipe.cache_clear()
        return {pair.name for pair in found.changed(pairs, "cpu")}

    assert changed() == set()
    for table, entry, other in [
        (OVERRIDES, "bert", {"hidden_size": 48}),
        (OVERRIDES, "bert/masked-lm", {"_pair": "$A $B"}),
        (RECIPES, "llava", RECIPES["llava"] | {"shows": "<picture>"}),
    ]:
        with monkeypatch.context() as patch:
            patch.setitem(table, entry, other)
            assert changed() == {both if entry == "llava" else text}
    copy = shutil.copytree(HERE, tmp_path / "sweep")
    monkeypatch.setattr(results, "HERE", copy)
    for module, touched in [("text", {text, both}), ("adaptors/labels_of_images", {text, both, image})]:
        with (copy / f"{module}.py").open("a") as file:
            file.write("# more\n")
        assert changed() == touched
