"""Makes a plugin out of the template: a real, tested plugin in which one word is replaced."""

from __future__ import annotations

import keyword
import re
import shutil
from pathlib import Path

from modelport.contract.errors import ConfigurationError
from modelport.core.config.rules import name_fault

__all__ = ["new_plugin", "template_folder"]

_WORD = "shout"
_LEFT_OUT = shutil.ignore_patterns("__pycache__", ".*", "*.egg-info", "dist", "build")


def template_folder() -> Path:
    """The template: inside the package in a wheel, at the top of the tree in a checkout.

    Raises:
        ConfigurationError: it is in neither place.
    """
    here = Path(__file__).resolve()
    for folder in (here.parent / "template", here.parents[4] / "plugin_template"):
        if (folder / "pyproject.toml").is_file():
            return folder
    raise ConfigurationError("The plugin template is missing from this installation. Install modelport again.")


def new_plugin(kind: str, name: str, folder: Path) -> Path:
    """Makes `folder`/modelport-skill-NAME and returns it.

    Args:
        kind: `skill`; there is a template of no other kind.
        name: The plugin's name: lower-case letters, digits and `_` (or `-`, which becomes `_` in Python).
        folder: Where to make it.

    Raises:
        ConfigurationError: the kind has no template, the name cannot be one, or the folder exists already.
    """
    if kind != "skill":
        raise ConfigurationError(
            f"There is no template for a plugin of kind {kind!r}, only for skill. Start from one of modelport's own, such as "
            "modelport-backend-cpu or modelport-api-native; modelport.hookspecs is the manual."
        )
    word = name.replace("-", "_")
    if not re.fullmatch(r"[a-z][a-z0-9_]*", word) or keyword.iskeyword(word) or name_fault(word):
        raise ConfigurationError(f"{name!r} cannot name a plugin. Use lower-case letters, digits and _, and start with a letter.")
    target = folder / f"modelport-skill-{word.replace('_', '-')}"
    if target.exists():
        raise ConfigurationError(f"{target} exists already. Choose another name, or remove it first.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copytree(template_folder(), target, ignore=_LEFT_OUT)
        for path in sorted(target.rglob("*"), key=lambda path: len(path.parts), reverse=True):
            if path.is_file():
                path.write_text(_renamed(path.read_text("utf-8"), word), "utf-8")
            if _WORD in path.name:
                path.rename(path.with_name(path.name.replace(_WORD, word)))
    except OSError as error:
        shutil.rmtree(target, ignore_errors=True)
        raise ConfigurationError(f"{target} could not be made: {error.strerror or error}.") from error
    return target


def _renamed(text: str, word: str) -> str:
    """`text` about `word`, in each of the ways in which the template writes its own."""
    dashed = word.replace("_", "-")
    camel = "".join(part.capitalize() for part in word.split("_"))
    spellings = {f"-{_WORD}": f"-{dashed}", _WORD.upper(): word.upper(), _WORD.capitalize(): camel, _WORD: word}
    return re.sub("|".join(map(re.escape, spellings)), lambda match: spellings[match[0]], text)
