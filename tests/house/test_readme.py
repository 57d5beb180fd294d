"""Commands in the documentation exist, with the options that are written there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from modelport.core.cli.group import COMMANDS
from modelport.core.cli.main import modelport

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("*/README.md"), *ROOT.glob("plugins/*/*/README.md")])


def commands(page: Path) -> list[str]:
    """Lines and inline code that call modelport or make."""
    text = page.read_text(encoding="utf-8")
    fenced = "".join(re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    indented = "\n".join(line[4:] for line in text.splitlines() if line.startswith("    "))
    blocks = re.findall(r"^(?:\$ )?((?:modelport|make) .+)$", f"{fenced}\n{indented}", re.MULTILINE)
    inline = re.findall(r"`((?:modelport|make) [^`]+)`", text)
    return [*blocks, *inline]


FOUND = [(page, line) for page in PAGES for line in commands(page)]


@pytest.mark.parametrize(("page", "line"), FOUND, ids=[f"{page.relative_to(ROOT)}: {line[:50]}" for page, line in FOUND])
def test_command_in_the_documentation_exists(page: Path, line: str) -> None:
    words = shlex.split(line.replace("…", "X"), comments=True)
    if words[0] == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        assert words[1] in targets
        return
    context = click.Context(modelport)
    command: click.Command = modelport
    rest = words[1:]
    while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
        if command is modelport and rest[0] not in COMMANDS:
            pytest.fail(f"{line!r}: there is no command {rest[0]!r}")
        found = command.get_command(context, rest.pop(0))
        assert found is not None, f"{line!r} names a command that does not exist"
        command = found
    options = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)} | {
        "--help",
        "--version",
    }
    assert [word for word in rest if word.startswith("--") and word.split("=")[0] not in options] == []


def test_readme_lists_every_command() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")

    assert [name for name in COMMANDS if f"| `modelport {name}` |" not in text] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_shows_examples(name: str) -> None:
    command = modelport.get_command(click.Context(modelport), name)
    assert command is not None
    leaves = list(command.commands.values()) if isinstance(command, click.Group) else [command]

    assert [leaf.name for leaf in leaves if f"`modelport {name}" not in (leaf.help or "")] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_speaks_json(name: str) -> None:
    command = modelport.get_command(click.Context(modelport), name)
    assert command is not None
    leaves = list(command.commands.values()) if isinstance(command, click.Group) else [command]

    assert [leaf.name for leaf in leaves if not any("--json" in parameter.opts for parameter in leaf.params)] == []


def test_the_configuration_in_the_readme_is_a_configuration(tmp_path: Path) -> None:
    from modelport.core.config.load import load

    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for index, block in enumerate(re.findall(r"```toml\n(.*?)```", text, re.DOTALL)):
        file = tmp_path / f"{index}.toml"
        file.write_text(block, encoding="utf-8")
        assert load(file, {}, {}).settings.models
