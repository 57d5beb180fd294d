"""A converter's process: alone for its job, or staying for those that follow."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

CONVERTER = """
import json, os, signal
from pathlib import Path
from modelport_convert.child import answer

imports = []

def convert(job, tell):
    tell("converting", 0.5)
    if job.recipe.get("waits"):
        signal.pause()
    if job.recipe.get("refuses"):
        raise ValueError("it has no layers")
    if job.recipe.get("dies"):
        os.kill(os.getpid(), signal.SIGKILL)
    told = {"process": os.getpid(), "parent": os.getppid(), "imports": len(imports)}
    (Path(job.out) / "told.json").write_text(json.dumps(told))

if __name__ == "__main__":
    answer(convert, "pip install it", lambda: imports.append(1))
"""

OWNER = """
import json, os, sys, time
from pathlib import Path
from modelport.contract import ConfigurationError, Program
from modelport_convert.conversion import ChildConverter
from modelport_convert.job import Job

def progress(what, fraction):
    print(json.dumps({"what": what}), flush=True)

for number, recipe in enumerate(json.loads(sys.argv[1])):
    out = Path(str(number))
    out.mkdir()
    job = Job(program=Program({}), checkpoints={}, dtype="float32", recipe=recipe, out=str(out), stays_s=recipe["stays_s"])
    try:
        ChildConverter("made_up_converter", "Nobody")(job, progress)
        print((out / "told.json").read_text(), flush=True)
    except ConfigurationError as error:
        print(json.dumps({"error": error.message}), flush=True)
print(json.dumps({"owner": os.getpid()}))
"""

Owner = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def owner(tmp_path: Path) -> Owner:
    """Starts a process that has jobs carried out one after the other, each by a converter of its own."""
    (tmp_path / "made_up_converter.py").write_text(CONVERTER)

    def start(*recipes: dict[str, Any], stays_s: float = 600.0) -> subprocess.Popen[str]:
        jobs = json.dumps([{"stays_s": stays_s} | recipe for recipe in recipes])
        command = [sys.executable, "-c", OWNER, jobs]
        environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path, env=environment)

    return start


def said(process: subprocess.Popen[str]) -> list[dict[str, Any]]:
    """What came of each job, and the owner's own number, once it has ended."""
    told, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    return [found for line in told.splitlines() if "what" not in (found := json.loads(line))]


def test_a_process_that_does_not_stay_is_there_for_one_job(owner: Owner) -> None:
    first, second, itself = said(owner({}, {}, stays_s=0))
    assert first["process"] != second["process"]
    assert first["parent"] == second["parent"] == itself["owner"]
    assert first["imports"] == 0


@pytest.mark.skipif(sys.platform != "linux", reason="processes stay on Linux only")
class TestStaying:
    def test_later_jobs_find_what_the_first_imported_and_nothing_else_of_it(self, owner: Owner) -> None:
        first, second, third, itself = said(owner({}, {}, {}))
        assert first["parent"] == second["parent"] == third["parent"] != itself["owner"]
        assert len({first["process"], second["process"], third["process"]}) == 3
        assert [each["imports"] for each in (first, second, third)] == [1, 1, 1]

    def test_a_job_that_fails_or_dies_is_told_and_ends_nothing_but_itself(self, owner: Owner) -> None:
        first, refused, died, last, _ = said(owner({}, {"refuses": True}, {"dies": True}, {}))
        assert refused == {"error": "Nobody cannot convert this model: it has no layers."}
        assert died == {"error": "Nobody cannot convert this model: the converter ended with status -9."}
        assert first["parent"] == last["parent"]

    def test_a_process_that_stayed_in_vain_is_followed_by_another(self, owner: Owner) -> None:
        first, second, _ = said(owner({}, {}, stays_s=1e-9))
        assert first["parent"] != second["parent"]

    def test_nothing_outlives_its_owner(self, owner: Owner) -> None:
        process = owner({}, {"waits": True})
        assert process.stdout is not None
        with process.stdout:
            told = (json.loads(line) for line in process.stdout)
            assert any("process" in each for each in told)
            assert any(each.get("what") == "converting" for each in told)
            children = psutil.Process(process.pid).children(recursive=True)
            assert len(children) == 2  # the one that stays, and the job's
            process.send_signal(signal.SIGKILL)
            process.wait()
        _, alive = psutil.wait_procs(children, 30)
        assert not alive
