"""A fixed sample of the sweep, over all tasks that the installed skills do; `make sweep` runs the whole of it."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

from modelport.core.config.settings import Settings
from modelport.core.plugins.discover import discover

HERE = Path(__file__).resolve().parent
SAMPLE = (HERE / "sample.txt").read_text(encoding="utf-8").split()
HEADS = tomllib.loads((HERE / "tasks.toml").read_text(encoding="utf-8"))


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

    told = json.loads(file.read_text(encoding="utf-8"))["pairs"]
    others = {pair: found["cpu"] for pair, found in told.items() if found["cpu"]["status"] != "verified"}
    assert others == {}
    assert run.returncode == 0, run.stdout + run.stderr
    assert sorted(told) == sorted(pair for pair in SAMPLE if pair.partition("/")[2] in heads)
    assert len(told) >= 30


def test_the_sample_is_of_pairs_that_there_are() -> None:
    sys.path.insert(0, str(HERE))
    try:
        from pairs import all_pairs
    finally:
        sys.path.remove(str(HERE))

    assert set(SAMPLE) <= {pair.name for pair in all_pairs()}
    assert len(SAMPLE) <= 44
