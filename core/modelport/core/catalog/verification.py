"""What the sweep found out about each family, from the file that it writes: `verified.json`, beside this module."""

from __future__ import annotations

import functools
from pathlib import Path

import msgspec

__all__ = ["Verification", "verification"]

_FILE = Path(__file__).with_name("verified.json")


class _Finding(msgspec.Struct):
    status: str
    reason: str = ""


class _File(msgspec.Struct):
    transformers: str
    tasks: dict[str, str]
    pairs: dict[str, dict[str, _Finding]]


class Verification:
    """The findings, made with one version of transformers.

    Args:
        transformers: That version; empty if nothing was verified.
        families: model_type → backend → task → `verified`, or what was found instead and why.
    """

    def __init__(self, transformers: str = "", families: dict[str, dict[str, dict[str, str]]] | None = None) -> None:
        self.transformers = transformers
        self.families = families or {}

    @classmethod
    def read(cls, file: Path) -> Verification:
        """The findings in `file`; none if there is no such file. A task counts as verified if one of its heads is."""
        try:
            told = msgspec.json.decode(file.read_bytes(), type=_File)
        except FileNotFoundError:
            return cls()
        families: dict[str, dict[str, dict[str, str]]] = {}
        for pair, found in told.pairs.items():
            model_type, _, head = pair.rpartition("/")
            for backend, finding in found.items():
                tasks = families.setdefault(model_type, {}).setdefault(backend, {})
                said = finding.status if finding.status == "verified" else f"{finding.status}: {finding.reason}"
                if tasks.get(told.tasks[head]) != "verified":
                    tasks[told.tasks[head]] = said
        return cls(told.transformers, families)


@functools.cache
def verification() -> Verification:
    """The findings that this version of modelport was released with."""
    return Verification.read(_FILE)
