"""Which torch is installed and what it was built for, read from its files: importing it takes seconds, this milliseconds."""

from __future__ import annotations

import ast
import mmap
import re
from functools import cache
from importlib import metadata, util
from pathlib import Path

import msgspec

__all__ = ["TorchBuild", "torch_build", "version_of", "versions"]

# The list that torch.cuda.get_arch_list() gives, as it stands in torch's library: `sm_80 sm_90 compute_90`, or `gfx90a gfx1100`.
_ARCHITECTURES = re.compile(
    rb"(?<=\x00)(?:(?:sm|compute)_\d+[af]?|gfx[0-9a-f]+)(?: (?:(?:sm|compute)_\d+[af]?|gfx[0-9a-f]+))*(?=\x00)"
)
_LIBRARIES = ("lib/libtorch_python.so", "lib/torch_python.dll")


class TorchBuild(msgspec.Struct, frozen=True, kw_only=True):
    """A torch as it was built.

    Args:
        version: Empty if none is installed.
        cuda: The version of CUDA that it was built with; empty for other builds.
        hip: The same of HIP, which is what its ROCm builds use.
        architectures: What its kernels were compiled for (`sm_90`, `gfx942`); empty if that cannot be told.
    """

    version: str = ""
    cuda: str = ""
    hip: str = ""
    architectures: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        """What it is, for the end of a sentence."""
        if not self.version:
            return "not installed"
        if self.hip:
            return f"{self.version}, built for ROCm (HIP {self.hip})"
        return f"{self.version}, built for CUDA {self.cuda}" if self.cuda else f"{self.version}, a build without CUDA and ROCm"


def torch_build(folder: Path | None = None) -> TorchBuild:
    """The torch in `folder`, by default the one that `import torch` would find."""
    if folder is None:
        found = util.find_spec("torch")
        if found is None or found.origin is None:
            return TorchBuild()
        folder = Path(found.origin).parent
    try:
        said = _constants((folder / "version.py").read_text(encoding="utf-8"))
    except (OSError, SyntaxError):
        return TorchBuild()
    cuda, hip = said.get("cuda", ""), said.get("hip", "")
    architectures = _architectures(folder) if cuda or hip else ()
    return TorchBuild(version=said.get("__version__", ""), cuda=cuda, hip=hip, architectures=architectures)


@cache
def version_of(distribution: str) -> str:
    """The installed version of a distribution, without importing it; `not installed` if it is not."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "not installed"


def versions(*distributions: str) -> dict[str, str]:
    """Installed versions, for `Probe.versions`."""
    return {name: version_of(name) for name in distributions}


def _constants(source: str) -> dict[str, str]:
    """Texts that a module assigns to names at its top."""
    found = {}
    for statement in ast.parse(source).body:
        if isinstance(statement, ast.AnnAssign | ast.Assign) and isinstance(statement.value, ast.Constant):
            target = statement.target if isinstance(statement, ast.AnnAssign) else statement.targets[0]
            if isinstance(target, ast.Name) and isinstance(statement.value.value, str):
                found[target.id] = statement.value.value
    return found


def _architectures(folder: Path) -> tuple[str, ...]:
    for name in _LIBRARIES:
        path = folder / name
        if path.is_file() and path.stat().st_size:
            with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                lists = [found.group().decode() for found in _ARCHITECTURES.finditer(content)]
            return tuple(max(lists, key=len, default="").split())
    return ()
