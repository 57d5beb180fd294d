"""What is known of each pair, kept in the file that modelport ships: `modelport models families` reads it."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from build import changes_of
from pairs import HEADS, HERE, Pair

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


def recipe(pair: Pair) -> str:
    """A digest of what makes the pair's checkpoint and questions, the general rules aside."""
    adaptor = HERE / f"adaptors/{pair.adaptor}.py"
    said: list[Any] = [changes_of(pair, {}), pair.architectures]
    said.append(adaptor.read_text(encoding="utf-8") if adaptor.exists() else "")
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:8]
