"""Hooks: each is documented in all its sections, and called by some test."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import pytest

from modelport import hookspecs

HOOKS: dict[str, Any] = {name: item for name, item in vars(hookspecs).items() if hasattr(item, "modelport_spec")}


def test_there_are_hooks() -> None:
    assert {"register_backends", "register_skills", "register_apis", "register_executors"} <= set(HOOKS)


@pytest.mark.parametrize("name", HOOKS)
@pytest.mark.parametrize(
    ("section", "pattern"),
    [
        ("a first sentence", r"\A[A-Z].*\."),
        ("since when", r"Since \d+\.\d+\."),
        ("when and where it is called", r"Called: .*\b(server|command line|worker)\b"),
        ("what to return", r"Return: "),
        ("what happens if it raises", r"raises?\b"),
        ("an example", r"::\n\n\s+@hookimpl\n\s+def {name}\("),
    ],
)
def test_hook_documents(name: str, section: str, pattern: str) -> None:
    text = inspect.getdoc(HOOKS[name]) or ""

    assert re.search(pattern.format(name=name), text, re.DOTALL), f"{name} does not say {section}"


@pytest.mark.parametrize("name", HOOKS)
def test_hook_says_what_none_means_if_it_returns_something(name: str) -> None:
    if inspect.signature(HOOKS[name]).return_annotation in (None, "None"):
        return
    assert "None: " in (inspect.getdoc(HOOKS[name]) or "")


@pytest.mark.parametrize("name", HOOKS)
def test_hook_explains_every_argument_or_needs_none(name: str) -> None:
    text = inspect.getdoc(HOOKS[name]) or ""

    assert not inspect.signature(HOOKS[name]).parameters or "Arrives: " in text


@pytest.mark.parametrize("name", HOOKS)
def test_hook_is_called_by_a_test(name: str, tracked: list[Path]) -> None:
    tests = [path for path in tracked if path.suffix == ".py" and "tests" in path.parts and path != Path(__file__)]

    assert any(re.search(rf"\b{name}\b", path.read_text(encoding="utf-8")) for path in tests), f"no test uses the hook {name}"
