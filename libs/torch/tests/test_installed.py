from __future__ import annotations

from pathlib import Path

import pytest
import torch

from modelport_torch.accelerator import visible
from modelport_torch.installed import TorchBuild, torch_build, version_of

VERSION = """from typing import Optional

__all__ = ['__version__', 'debug', 'cuda', 'git_version', 'hip', 'rocm', 'xpu']
__version__ = '{version}'
debug = False
cuda: Optional[str] = {cuda!r}
git_version = '08187d9e0fba026dc8217405802ab5381dc88d90'
hip: Optional[str] = {hip!r}
"""


def installed(folder: Path, version: str, cuda: str | None, hip: str | None, library: bytes = b"") -> Path:
    (folder / "lib").mkdir()
    (folder / "version.py").write_text(VERSION.format(version=version, cuda=cuda, hip=hip))
    (folder / "lib/libtorch_python.so").write_bytes(library)
    return folder


def test_installed_torch_is_what_importing_it_says() -> None:
    build = torch_build()
    assert build.version == str(torch.__version__)
    assert (build.cuda or None, build.hip or None) == (torch.version.cuda, torch.version.hip)
    if torch.cuda.is_available():
        assert list(build.architectures) == torch.cuda.get_arch_list()


def test_cuda_build_lists_what_its_kernels_were_compiled_for(tmp_path: Path) -> None:
    library = b"\x7fELF\x00sm_80\x00sm_90a sm_90\x00 junk\x00sm_75 sm_80 sm_90a compute_90\x00rest"
    build = torch_build(installed(tmp_path, "2.14.0+cu130", "13.0", None, library))
    assert build == TorchBuild(version="2.14.0+cu130", cuda="13.0", architectures=("sm_75", "sm_80", "sm_90a", "compute_90"))
    assert build.kind == "2.14.0+cu130, built for CUDA 13.0"


def test_rocm_build_is_told_apart_by_hip(tmp_path: Path) -> None:
    build = torch_build(installed(tmp_path, "2.9.1+rocm6.4", None, "6.4.43484", b"\x00gfx900 gfx90a gfx1100\x00"))
    assert (build.cuda, build.hip, build.architectures) == ("", "6.4.43484", ("gfx900", "gfx90a", "gfx1100"))


@pytest.mark.parametrize("library", [b"", b"nothing of the kind"])
def test_build_that_does_not_list_them_has_none(tmp_path: Path, library: bytes) -> None:
    assert torch_build(installed(tmp_path, "2.14.0", "13.0", None, library)).architectures == ()


def test_folder_without_torch_is_no_build(tmp_path: Path) -> None:
    assert torch_build(tmp_path) == TorchBuild()
    assert TorchBuild().kind == "not installed"
    assert version_of("no-such-distribution-here") == "not installed"


@pytest.mark.parametrize(
    ("wanted", "places"),
    [
        (None, [0, 1, 2]),
        ("", []),
        ("2, 0", [2, 0]),
        ("0,-1,1", [0]),
        ("GPU-b", [1]),
        ("GPU-", []),  # names more than one
        ("MIG-a,GPU-c", []),
    ],
)
def test_variable_shows_devices_as_drivers_read_it(wanted: str | None, places: list[int]) -> None:
    assert visible(["GPU-a1", "GPU-b2", "GPU-c3"], wanted) == places
