"""The documentation: what is made from code is up to date, files that are shown are tested, links lead somewhere."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import tomllib
from importlib import metadata
from pathlib import Path
from types import ModuleType

import pytest

from modelport.core.config.load import load
from modelport.core.config.settings import Settings
from modelport.core.config.show import describe
from modelport.core.observe.metrics import Metrics
from modelport.core.plugins.discover import discover

ROOT = Path(__file__).resolve().parents[2]
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [ROOT / "README.md", *DOCS]
ids = [str(page.relative_to(ROOT)) for page in PAGES]


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def document() -> ModuleType:
    """tools/document.py, which is no package's."""
    spec = importlib.util.spec_from_file_location("document", ROOT / "tools/document.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_page_is_what_the_tool_would_write(page: Path, document: ModuleType) -> None:
    assert read(page) == document.written(read(page)), "run `python tools/document.py`"


def test_configuration_page_has_the_table_of_every_key(document: ModuleType) -> None:
    made = {match["source"] for match in document.MADE.finditer(read(ROOT / "docs/configuration.md"))}
    table = document.made("keys")

    assert "keys" in made
    assert table.count("\n| `") == len(describe())


def test_every_key_is_explained() -> None:
    assert [key.key for key in describe() if not key.help] == []


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_python_on_a_page_is_a_file(page: Path, document: ModuleType) -> None:
    rest = document.MADE.sub("", read(page))

    assert re.findall(r"^```python$", rest, re.MULTILINE) == [], "show a file: <!-- made from examples/… -->"


def test_shown_files_are_run_by_a_test(document: ModuleType) -> None:
    shown = {match["source"] for page in PAGES for match in document.MADE.finditer(read(page))} - {"keys"}
    run = ("examples/", "plugin_template/")  # by tests/e2e/test_examples.py and tests/e2e/test_template.py

    assert [source for source in shown if not source.startswith(run)] == []


def test_every_example_is_run_by_a_test() -> None:
    text = read(ROOT / "tests/e2e/test_examples.py")
    examples = [path.name for folder in ("examples", "examples/plugins") for path in (ROOT / folder).iterdir()]

    assert [name for name in examples if f'"{name}"' not in text and name not in {"plugins", "__pycache__"}] == []


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_toml_on_a_page_is_toml_and_a_configuration_where_it_looks_like_one(page: Path, tmp_path: Path) -> None:
    for index, block in enumerate(re.findall(r"^```toml\n(.*?)^```", read(page), re.MULTILINE | re.DOTALL)):
        parsed = tomllib.loads(block)
        if "project" in parsed or "build-system" in parsed:
            continue
        file = tmp_path / f"{index}.toml"
        file.write_text(block, encoding="utf-8")
        load(file, {}, {})


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_variables_on_a_page_are_read(page: Path) -> None:
    given = re.findall(r"`(MODELPORT_[A-Z_]+)=([^` ]+)`", read(page))
    models = {"my-chat": {"source": "org/model"}}  # as the page says, a flag that names one

    for name, value in given:
        loaded = load(None, {name: value, "MODELPORT_CONFIG": os.devnull}, {"models": models})
        assert name in loaded.places.values()


def test_metrics_on_a_page_exist() -> None:
    exposed, _ = Metrics().exposition("")
    known = set(re.findall(r"^# TYPE (\S+)", exposed.decode(), re.MULTILINE))
    named = set(re.findall(r"`((?:modelport_|vllm:)\w+)`", read(ROOT / "docs/deployment.md")))

    assert len(named) > 10
    assert named - known == set()


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_links_to_files_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", read(page))

    assert [link for link in links if not (page.parent / link).exists()] == []


def test_every_page_is_linked_from_the_readme() -> None:
    text = read(ROOT / "README.md")

    assert [page.name for page in DOCS if f"(docs/{page.name})" not in text] == []


def test_compatibility_page_is_what_the_tool_would_write() -> None:
    written = read(ROOT / "docs/compatibility.md")
    if f"with transformers {metadata.version('transformers')}:" not in written:
        pytest.skip("the page is about another transformers")
    spec = importlib.util.spec_from_file_location("compatibility", ROOT / "tools/compatibility.py")
    assert spec is not None
    assert spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    registry = discover(Settings())
    measured = json.loads(read(tool.MEASURED))
    assert written == tool.page(registry.skills, registry.backends, measured), "run `python tools/compatibility.py`"
