"""Which pairs there are: the model types of the head mappings in tasks.toml, as the installed transformers lists them."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"  # before transformers is imported: some configurations would look a backbone up
HERE = Path(__file__).resolve().parent
HEADS: dict[str, dict[str, Any]] = tomllib.loads((HERE / "tasks.toml").read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Pair:
    """A model type with one head.

    Attributes:
        architectures: Names of the classes that the mapping has for it, the first of which is built.
    """

    model_type: str
    head: str
    architectures: tuple[str, ...]

    @property
    def name(self) -> str:
        """What the results call it."""
        return f"{self.model_type}/{self.head}"

    @property
    def task(self) -> str:
        """The Hub's name of what it does."""
        return str(HEADS[self.head]["task"])

    @property
    def adaptor(self) -> str:
        """The module that asks and compares."""
        return str(HEADS[self.head]["adaptor"])


def all_pairs() -> list[Pair]:
    """Every pair, head by head."""
    from transformers.models.auto import modeling_auto

    found: dict[str, Pair] = {}
    for head, told in HEADS.items():
        only = {model_type for name in told.get("only", ()) for model_type in _mapping(modeling_auto, name)}
        for name in told["mappings"]:
            for model_type, classes in sorted(_mapping(modeling_auto, name).items()):
                if (only and model_type not in only) or model_type in told.get("except", ()):
                    continue
                if "types" in told and model_type not in told["types"]:
                    continue
                names = (classes,) if isinstance(classes, str) else tuple(classes)
                pair = Pair(model_type, head, names)
                found.setdefault(pair.name, pair)
    return list(found.values())


def chosen(pairs: Iterable[Pair], words: Iterable[str]) -> list[Pair]:
    """Those that one of `words` names: a model type, a head, a task, or a pair (`bert/masked-lm`); all if there are none."""
    wanted = set(words)
    return [pair for pair in pairs if not wanted or wanted & {pair.name, pair.model_type, pair.head, pair.task}]


def _mapping(module: Any, name: str) -> dict[str, Any]:
    return dict(getattr(module, name, None) or {})
