"""Versions of installed plugins, as both sides of a worker's socket compare them."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import entry_points

__all__ = ["plugin_versions"]


def plugin_versions(names: Iterable[str]) -> dict[str, str]:
    """The distribution's version of each plugin, by `kind/name` (`skills/text_embedding`); those not installed are left out."""
    found: dict[str, str] = {}
    for key in names:
        kind, _, name = key.partition("/")
        for entry_point in entry_points(group=f"modelport.{kind}", name=name):
            if entry_point.dist is not None:
                found[key] = entry_point.dist.version
    return found
