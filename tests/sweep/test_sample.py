"""A fixed sample of the sweep, over all tasks; `make sweep` runs the whole of it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def test_the_sample_is_served_as_transformers_answers(tmp_path: Path) -> None:
    command = [sys.executable, str(HERE / "run.py"), "--sample", "--results", str(tmp_path / "results.json")]

    done = subprocess.run(command, capture_output=True, text=True, check=False)

    told = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))["pairs"]
    others = {pair: found["cpu"] for pair, found in told.items() if found["cpu"]["status"] != "verified"}
    assert others == {}
    assert done.returncode == 0, done.stdout + done.stderr
    assert sorted(told) == sorted((HERE / "sample.txt").read_text(encoding="utf-8").split())
