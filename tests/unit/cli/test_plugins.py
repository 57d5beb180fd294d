"""`modelport plugins check` loads what it is asked about, and nothing else into its own process."""

from __future__ import annotations

import json
from pathlib import Path


def _plugin(folder: Path, source: str) -> Path:
    (folder / "src").mkdir(parents=True)
    (folder / "pyproject.toml").write_text('[project.entry-points."modelport.skills"]\nmine = "plugin_mine"\n')
    (folder / "src" / "plugin_mine.py").write_text(source)
    return folder


def test_check_loads_a_plugin_that_is_only_a_folder(modelport, tmp_path: Path) -> None:
    modelport("plugins", "new", "skill", "mine")
    assert modelport("plugins", "check", "modelport-skill-mine").stdout == "ok: mine: skills.mine loads, for contract 1.0\n"

    broken = _plugin(tmp_path / "broken", "import nothing_of_that_name\nMODELPORT_CONTRACT = '1.0'\n")
    (finding,) = json.loads(modelport("plugins", "check", str(broken), "--json", status=1).stdout)
    assert (finding["level"], finding["plugin"]) == ("error", "mine")
    assert "nothing_of_that_name" in finding["message"]


def test_check_of_everything_survives_a_plugin_that_ends_its_process(modelport, tmp_path: Path) -> None:
    info = tmp_path / "site" / "modelport_skill_bad-0.1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: modelport-skill-bad\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text("[modelport.skills]\nbad = plugin_bad\n")
    (tmp_path / "site" / "plugin_bad.py").write_text("import os\nos._exit(7)\n")

    said = modelport("plugins", "check", status=1, PYTHONPATH=str(tmp_path / "site")).stdout

    assert "error: bad: loading it ended the process with status 7" in said
    assert "ok: cpu: backends.cpu loads, for contract 1.0" in said


def test_a_plugin_that_is_not_installed_is_named(modelport) -> None:
    assert "There is no plugin 'nope'" in modelport("plugins", "check", "nope", status=2).stderr
