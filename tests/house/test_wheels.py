"""Wheels hold what an installed modelport needs, and nothing else."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest


def build(folder: Path, target: Path) -> zipfile.ZipFile:
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(target)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return zipfile.ZipFile(next(target.glob("*.whl")))


@pytest.fixture(scope="module")
def core(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel of the core."""
    return build(Path(__file__).resolve().parents[2], tmp_path_factory.mktemp("core"))


def test_the_core_carries_the_real_hookspecs(core: zipfile.ZipFile, root: Path) -> None:
    assert core.read("modelport/hookspecs.py") == (root / "hookspecs.py").read_bytes()
    assert len([name for name in core.namelist() if name.endswith("hookspecs.py")]) == 1


def test_the_core_carries_the_template(core: zipfile.ZipFile, root: Path, tracked: list[Path]) -> None:
    template = root / "plugin_template"
    expected = {path.relative_to(template).as_posix() for path in tracked if template in path.parents}

    prefix = "modelport/core/plugins/template/"
    assert {name.removeprefix(prefix) for name in core.namelist() if name.startswith(prefix)} == expected


def test_the_core_carries_every_module_and_no_rubbish(core: zipfile.ZipFile, root: Path, tracked: list[Path]) -> None:
    modules = {path.relative_to(root / "core").as_posix() for path in tracked if root / "core/modelport" in path.parents}
    names = {name for name in core.namelist() if ".dist-info/" not in name and "/template/" not in name}

    assert names == {*modules, "modelport/hookspecs.py"}


def test_the_core_is_typed_licensed_and_has_its_command(core: zipfile.ZipFile) -> None:
    names = core.namelist()
    scripts = next(name for name in names if name.endswith("entry_points.txt"))

    assert "modelport/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert b"modelport = modelport.core.cli.main:main" in core.read(scripts)


def test_plugins_carry_their_one_module(plugin_folders: list[Path], tmp_path: Path) -> None:
    for folder in plugin_folders:
        target = tmp_path / folder.name
        with build(folder, target) as wheel:
            tops = {name.split("/")[0] for name in wheel.namelist() if ".dist-info/" not in name}
            assert tops == {path.name for path in (folder / "src").iterdir() if path.name != "__pycache__"}, folder
            assert any(name.endswith("/py.typed") for name in wheel.namelist()), folder
