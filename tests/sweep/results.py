"""What is known of each pair, kept in the file that modelport ships: `modelport models families` reads it."""

from __future__ import annotations

import functools
import hashlib
import importlib
import json
import re
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from adaptors.image_text_to_text import RECIPES, recipe_of
from build import changes_of, note_of, settings_of, told_of
from pairs import HEADS, HERE, Pair
from shrink import tiny_config

FILE = HERE.parents[1] / "core/modelport/core/catalog/verified.json"


class Results:
    """The findings of every pair on every backend, written to `file` after each."""

    def __init__(self, file: Path = FILE) -> None:
        import transformers

        self.file = file
        self.transformers = transformers.__version__
        self._lock = threading.Lock()
        told = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        if told.get("transformers") != self.transformers:
            told = {}
        self.pairs: dict[str, dict[str, dict[str, str]]] = told.get("pairs", {})
        self.http: dict[str, dict[str, str]] = told.get("http", {})

    def open(self, pairs: Iterable[Pair], backend: str) -> list[Pair]:
        """Those that are not verified, or whose recipe has changed since they were."""
        return [pair for pair in pairs if not self._stands(pair, backend)]

    def changed(self, pairs: Iterable[Pair], backend: str) -> list[Pair]:
        """Those that were verified with another recipe."""
        verified = [pair for pair in pairs if self.pairs.get(pair.name, {}).get(backend, {}).get("status") == "verified"]
        return self.open(verified, backend)

    def record(self, pair: Pair, backend: str, status: str, reason: str) -> None:
        """Keeps a finding."""
        with self._lock:
            self.pairs.setdefault(pair.name, {})[backend] = {"status": status, "reason": reason, "recipe": recipe(pair)}
            self.write()

    def forget(self, names: Iterable[str]) -> None:
        """Drops pairs that are none any more: all but `names`."""
        kept = set(names)
        self.pairs = {name: found for name, found in self.pairs.items() if name in kept}

    def write(self) -> None:
        """Writes the file, one pair a line, so that a change of one is a change of one line."""
        head = {
            "transformers": self.transformers,
            "tasks": {head: told["task"] for head, told in HEADS.items()},
            "http": self.http,
        }
        lines = [f"  {json.dumps(name)}: {json.dumps(self.pairs[name], ensure_ascii=False)}" for name in sorted(self.pairs)]
        above = "".join(f" {json.dumps(key)}: {json.dumps(value)},\n" for key, value in head.items())
        self.file.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.file.with_suffix(".part")
        temporary.write_text(f'{{\n{above} "pairs": {{\n' + ",\n".join(lines) + "\n }\n}\n", encoding="utf-8")
        temporary.replace(self.file)

    def _stands(self, pair: Pair, backend: str) -> bool:
        found = self.pairs.get(pair.name, {}).get(backend)
        return found is not None and found["status"] == "verified" and found["recipe"] == recipe(pair)


@functools.cache
def recipe(pair: Pair) -> str:
    """A digest of what makes the pair's checkpoint and questions: the tiny configuration, what the tables say beside it, and
    the adaptor with all that it imports from here. How weights are drawn is the same for all pairs, and left out."""
    seeing = recipe_of(pair.model_type) if pair.model_type in RECIPES else {}
    said = [pair.architectures, _configuration(pair), told_of(pair), seeing]
    said += [text for _, text in sorted(_sources(f"adaptors/{pair.adaptor}").items())]
    return hashlib.sha256(json.dumps(said, sort_keys=True, default=str).encode()).hexdigest()[:8]


def _configuration(pair: Pair) -> Any:
    try:
        settings = settings_of(importlib.import_module(f"adaptors.{pair.adaptor}"), pair)
        return tiny_config(note_of(pair, "_type") or pair.model_type, changes_of(pair, settings)).to_dict()
    except Exception as error:  # there is none, so nothing is verified either
        return str(error)


def _sources(name: str) -> dict[str, str]:
    """The text of a module of this folder, and of those that it imports; not of the rules for configurations, which are seen
    by what comes of them."""
    file = HERE / f"{name}.py"
    if name in ("build", "pairs", "shrink") or not file.exists():
        return {}
    found = {name: file.read_text(encoding="utf-8")}
    for module, first in re.findall(r"^from (\w+) import (\w+)", found[name], re.MULTILINE):
        found |= _sources(module) | _sources(f"{module}/{first}")
    return found
