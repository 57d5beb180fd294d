"""Names follow paths: a plugin's distribution, module and entry point are told by the folder it stands in."""

from __future__ import annotations

import importlib
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
KINDS = {"backends": "backend", "skills": "skill", "apis": "api", "executors": "executor"}
FOLDERS = sorted(path.parent for path in ROOT.glob("plugins/*/*/pyproject.toml"))
DISTRIBUTIONS = [*FOLDERS, *sorted(path.parent for path in ROOT.glob("libs/*/pyproject.toml"))]
ids = [str(folder.relative_to(ROOT)) for folder in FOLDERS]


def project(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return found


@pytest.mark.parametrize("folder", FOLDERS, ids=ids)
def test_plugin_is_named_after_its_folder(folder: Path) -> None:
    kind, name = KINDS[folder.parent.name], folder.name
    module = f"modelport_{kind}_{name}"

    found = project(folder)

    assert found["name"] == f"modelport-{kind}-{name.replace('_', '-')}"
    assert found["entry-points"] == {f"modelport.{folder.parent.name}": {name: module}}
    assert (folder / "src" / module / "__init__.py").is_file()


@pytest.mark.parametrize("folder", FOLDERS, ids=ids)
def test_plugin_has_a_readme_and_tests(folder: Path) -> None:
    assert (folder / "README.md").is_file()
    assert list((folder / "tests").glob("test_*.py"))


@pytest.mark.parametrize("folder", FOLDERS, ids=ids)
def test_plugin_states_the_contract_it_was_written_for(folder: Path) -> None:
    module = importlib.import_module(f"modelport_{KINDS[folder.parent.name]}_{folder.name}")

    assert module.MODELPORT_CONTRACT == "1.0"


@pytest.mark.parametrize("folder", DISTRIBUTIONS, ids=lambda folder: folder.name)
def test_distributions_move_in_lockstep(folder: Path) -> None:
    found = project(folder)

    assert found["version"] == project(ROOT)["version"]
    assert "modelport>=0.1,<0.2" in found["dependencies"]


def test_every_distribution_is_watched_by_the_import_linter() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    modules = {path.name for folder in DISTRIBUTIONS for path in (folder / "src").iterdir() if (path / "py.typed").exists()}
    plugins = {path.name for folder in FOLDERS for path in (folder / "src").iterdir() if (path / "py.typed").exists()}
    rules = {contract["name"]: contract for contract in settings["contracts"]}

    assert set(settings["root_packages"]) == {"modelport", *modules}
    assert set(rules["Plugins and libraries never import the core"]["source_modules"]) == modules
    assert set(rules["No plugin imports another"]["modules"]) == plugins


def test_rooms_of_the_core_are_the_layers() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    layers = next(contract["layers"] for contract in settings["contracts"] if contract["type"] == "layers")
    core = ROOT / "core/modelport/core"
    rooms = {path.parent.name for path in core.glob("*/__init__.py")} | {"app", "modelport.client"}

    assert {layer.removeprefix("modelport.core.") for layer in layers} == rooms
