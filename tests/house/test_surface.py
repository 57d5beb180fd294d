"""The public surface is a promise: a name leaves it, or joins it, on purpose.

After a wanted change: `python tests/house/test_surface.py` writes the new list.
"""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path

import pytest

import modelport.testing

SNAPSHOT = Path(__file__).with_name("public_surface.txt")
KIT = [f"modelport.testing.{module.name}" for module in pkgutil.iter_modules(modelport.testing.__path__)]
MODULES = ["modelport", "modelport.contract", "modelport.tasks", "modelport.streaming", "modelport.client", *KIT]


def surface() -> list[str]:
    return [f"{module}.{name}" for module in MODULES for name in sorted(importlib.import_module(module).__all__)]


def test_the_public_surface_is_the_promised_one() -> None:
    assert surface() == SNAPSHOT.read_text(encoding="utf-8").split()


@pytest.mark.parametrize("module", MODULES)
def test_every_public_name_is_there(module: str) -> None:
    imported = importlib.import_module(module)

    assert [name for name in imported.__all__ if not hasattr(imported, name)] == []


if __name__ == "__main__":
    SNAPSHOT.write_text("\n".join(surface()) + "\n", encoding="utf-8")
