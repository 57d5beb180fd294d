"""Plugins that are really installed: a module and the metadata of its distribution, in a folder of their own."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint, distributions
from pathlib import Path
from textwrap import dedent

import pytest

from modelport.core.config.settings import Settings
from modelport.core.plugins.discover import discover
from modelport.core.plugins.registry import Registry

SKILL = """
import msgspec
from modelport import hookimpl
from modelport.contract import Claim, Session, Skill, Task

MODELPORT_CONTRACT = "1.0"

class Request(msgspec.Struct):
    text: str

class NAMESkill(Skill):
    name = "NAME"
    tasks = (Task("TASK", Request, Request),)

    def claim(self, card):
        return Claim(("TASK",), 100, "by name") if card.source == "skill:NAME" else None

    def session(self, context):
        return Session(context)

@hookimpl
def register_skills():
    return [NAMESkill()]
"""


class Site:
    """A folder on `sys.path` in which plugins are installed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.modules: list[str] = []

    def install(self, module: str, source: str, distribution: str = "", version: str = "1.2", **points: str) -> None:
        """Writes `module` and a distribution with entry points `kind=name` (or `kind="name = other.module"`)."""
        distribution = distribution or module.replace("_", "-")
        (self.folder / f"{module}.py").write_text(dedent(source), "utf-8")
        self.modules.append(module)
        info = self.folder / f"{distribution.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n", "utf-8")
        lines = [f"[modelport.{kind}]\n{name if '=' in name else f'{name} = {module}'}" for kind, name in points.items()]
        (info / "entry_points.txt").write_text("\n".join(lines), "utf-8")

    def install_skill(self, name: str, distribution: str = "", task: str = "", module: str = "") -> None:
        """A whole skill that serves a task of its own."""
        module = module or f"plugin_{name}"
        self.install(module, SKILL.replace("NAME", name).replace("TASK", task or name), distribution, skills=f"{name} = {module}")

    @property
    def points(self) -> list[EntryPoint]:
        return [point for each in distributions(path=[str(self.folder)]) for point in each.entry_points]

    def discover(self, settings: Settings | None = None, **kinds: object) -> Registry:
        return discover(settings or Settings(), installed=self.points, **kinds)  # type: ignore[arg-type]

    def reason(self, name: str) -> str:
        """Why a plugin failed."""
        (record,) = [record for record in self.discover().records if record.name == name]
        assert record.state == "failed", record
        return record.reason


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    made = Site(folder)
    yield made
    for module in made.modules:
        sys.modules.pop(module, None)


@pytest.fixture
def reason_of(site: Site) -> Callable[..., str]:
    """Why a plugin with this source is refused."""

    def find(source: str, kind: str = "skills") -> str:
        site.install("plugin_bad", source, **{kind: "bad"})
        return site.reason("bad")

    return find
