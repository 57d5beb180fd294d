"""Commands in the documentation and in help texts exist, with the options that are written there."""

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


def leaves() -> dict[str, click.Command]:
    """Every command that does something, by the words that call it."""
    found: dict[str, click.Command] = {}
    for name in COMMANDS:
        command = modelport.get_command(click.Context(modelport), name)
        assert command is not None
        below = command.commands if isinstance(command, click.Group) else {"": command}
        found |= {f"modelport {name} {leaf}".strip(): each for leaf, each in below.items()}
    return found


LEAVES = leaves()
FOUND = [(str(page.relative_to(ROOT)), line) for page in PAGES for line in commands(page)]
FOUND += [(name, line) for name, leaf in LEAVES.items() for line in re.findall(r"`(modelport [^`]+)`", leaf.help or "")]


@pytest.mark.parametrize(("where", "line"), FOUND, ids=[f"{where}: {line[:50]}" for where, line in FOUND])
def test_command_that_is_shown_exists(where: str, line: str) -> None:
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


@pytest.mark.parametrize("name", LEAVES)
def test_every_command_shows_an_example_of_itself_and_speaks_json(name: str) -> None:
    leaf = LEAVES[name]

    assert f"- `{name}" in (leaf.help or "").partition("Examples:")[2]
    assert any("--json" in parameter.opts for parameter in leaf.params)


@pytest.mark.parametrize("name", LEAVES)
def test_every_option_says_what_it_does(name: str) -> None:
    silent = [option.name for option in LEAVES[name].params if isinstance(option, click.Option) and not option.help]

    assert silent == []


def test_the_configuration_in_the_readme_is_a_configuration(tmp_path: Path) -> None:
    from modelport.core.config.load import load

    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for index, block in enumerate(re.findall(r"```toml\n(.*?)```", text, re.DOTALL)):
        file = tmp_path / f"{index}.toml"
        file.write_text(block, encoding="utf-8")
        assert load(file, {}, {}).settings.models
