"""Making a plugin from the template, and checking one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from modelport.contract.errors import ConfigurationError
from modelport.core.plugins.check import check_plugin
from modelport.core.plugins.new import new_plugin


def test_new_skill_has_its_name_everywhere_and_loads(tmp_path: Path) -> None:
    made = new_plugin("skill", "my-echo", tmp_path)

    assert made == tmp_path / "modelport-skill-my-echo"
    files = [path for path in made.rglob("*") if path.is_file()]
    assert made / "src/modelport_skill_my_echo/__init__.py" in files
    assert [path for path in files if "shout" in (str(path.relative_to(made)) + path.read_text()).lower()] == []
    (finding,) = check_plugin(str(made))
    assert (finding.level, finding.plugin, finding.message) == ("ok", "my_echo", "skills.my_echo loads, for contract 1.0")


def test_new_plugin_named_as_the_template_is_the_template(tmp_path: Path) -> None:
    made = new_plugin("skill", "shout", tmp_path)

    assert (made / "src/modelport_skill_shout/__init__.py").is_file()


def test_new_plugin_does_not_overwrite(tmp_path: Path) -> None:
    new_plugin("skill", "echo", tmp_path)

    with pytest.raises(ConfigurationError, match=r"modelport-skill-echo exists already\. Choose another name, or remove it"):
        new_plugin("skill", "echo", tmp_path)


@pytest.mark.parametrize("name", ["", "Loud", "2fast", "a/b", "../up", "class", "info"])
def test_name_that_cannot_be_one_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot name a plugin"):
        new_plugin("skill", name, tmp_path)

    assert list(tmp_path.iterdir()) == []


def test_kind_without_a_template_is_refused_with_where_to_look(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"no template for a plugin of kind 'backend', only for skill"):
        new_plugin("backend", "tpu", tmp_path)


def _plugin(folder: Path, source: str) -> Path:
    (folder / "src").mkdir(parents=True)
    (folder / "pyproject.toml").write_text('[project.entry-points."modelport.skills"]\nmine = "plugin_mine"\n')
    (folder / "src" / "plugin_mine.py").write_text(source)
    return folder


HOOK = (
    "from modelport import hookimpl\nfrom modelport.contract import Skill\nMODELPORT_CONTRACT = '1.0'\n"
    "class Mine(Skill): name='mine'; tasks=()\n@hookimpl\ndef register_skills(): return [Mine()]\n"
)


def test_check_warns_of_a_heavy_import_and_a_plugin_that_prints_is_fine(tmp_path: Path) -> None:
    folder = _plugin(tmp_path / "p", "print('hello')\nimport litestar\n" + HOOK)

    findings = check_plugin(str(folder))

    assert [finding.level for finding in findings][:2] == ["ok", "warning"]
    assert "imports litestar, which the server would import with it" in findings[1].message


def test_check_survives_a_plugin_that_kills_its_process(tmp_path: Path) -> None:
    (finding,) = check_plugin(str(_plugin(tmp_path / "p", "import os; os._exit(7)")))

    assert (finding.level, finding.message) == ("error", "loading it ended the process with status 7: no message")


def test_check_tells_what_is_wrong(tmp_path: Path) -> None:
    (finding,) = check_plugin(str(_plugin(tmp_path / "p", "def register_skills(): return []")))

    assert finding.message == 'it states no contract; write MODELPORT_CONTRACT = "1.0" in plugin_mine'


def test_check_of_a_folder_without_entry_points_says_so(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 'x'\n")

    with pytest.raises(ConfigurationError, match=r"has no entry point in modelport\.backends, modelport\.skills"):
        check_plugin(str(tmp_path))


def test_check_of_an_unknown_name_says_so(site: Any) -> None:
    with pytest.raises(ConfigurationError, match="There is no plugin 'not_there', and no folder of that name"):
        check_plugin("not_there")
