"""What Linux's amdgpu driver says of its devices, in the files that it shows under /sys."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

__all__ = ["Driver", "Gpu", "gfx"]

_NODES = "sys/class/kfd/kfd/topology/nodes"


class Gpu(msgspec.Struct, frozen=True, kw_only=True):
    """One device that can compute.

    `architecture` is what compilers call it (`gfx942`), `chip` what the driver does (`aldebaran`), `minor` the number of its
    render node.
    """

    architecture: str
    name: str
    total_bytes: int
    free_bytes: int
    chip: str = ""
    unique_id: str = ""
    bus: str = ""
    minor: int = 0


class Driver:
    """The driver of this machine.

    Args:
        root: Where `/sys` and `/dev` are; tests give a folder of their own.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root

    def why_absent(self) -> str | None:
        """Why nothing can be computed with it, as a sentence, or None."""
        if not (self._root / "sys/module/amdgpu").is_dir():
            return "no AMD driver is loaded here: there is no kernel module amdgpu."
        if not (self._root / _NODES).is_dir():
            return "the AMD driver here shows no devices that compute: the kernel has amdgpu without KFD (CONFIG_HSA_AMD)."
        return None

    def why_closed(self, gpu: Gpu) -> str | None:
        """Why this user cannot open a device, as a sentence, or None."""
        for name in ("dev/kfd", f"dev/dri/renderD{gpu.minor}"):
            path = self._root / name
            if not path.exists():
                return f"{gpu.name} is there and /{name} is not: a container needs it passed in (--device /{name})."
            if not os.access(path, os.R_OK | os.W_OK):
                return f"{gpu.name} is there, and this user may not open /{name}: add it to the groups render and video."
        return None

    @property
    def version(self) -> str:
        """The driver's own, or the kernel's that it came with."""
        return self._read("sys/module/amdgpu/version") or self._read("proc/sys/kernel/osrelease") or "unknown"

    def gpus(self) -> list[Gpu]:
        """All, in the driver's order, which is that of HIP."""
        folders = [path for path in (self._root / _NODES).glob("*") if path.name.isdigit()]
        found = (self._gpu(folder) for folder in sorted(folders, key=lambda path: int(path.name)))
        return [gpu for gpu in found if gpu is not None]

    def _gpu(self, folder: Path) -> Gpu | None:
        node = _pairs(_text(folder / "properties"))
        if not node.get("simd_count") or not node.get("gfx_target_version"):
            return None  # a processor
        minor = node.get("drm_render_minor", 0)
        device = f"sys/class/drm/renderD{minor}/device"
        total, used = (self._number(f"{device}/mem_info_vram_{name}") for name in ("total", "used"))
        if not total:  # an old kernel: what the topology says, and nothing of what is free
            banks = (_pairs(_text(bank)) for bank in sorted(folder.glob("mem_banks/*/properties")))
            total, used = sum(bank.get("size_in_bytes", 0) for bank in banks if bank.get("heap_type") in (1, 2)), 0
        architecture = gfx(node["gfx_target_version"])
        location, domain = node.get("location_id", 0), node.get("domain", 0)
        return Gpu(
            architecture=architecture,
            name=self._read(f"{device}/product_name") or f"AMD GPU {architecture}",
            total_bytes=total,
            free_bytes=max(total - used, 0),
            chip=_text(folder / "name"),
            unique_id=f"GPU-{node['unique_id']:016x}" if node.get("unique_id") else "",
            bus=f"{domain:04x}:{location >> 8 & 0xFF:02x}:{location >> 3 & 0x1F:02x}.{location & 7}",
            minor=minor,
        )

    def _number(self, path: str) -> int:
        text = self._read(path)
        return int(text) if text.isdigit() else 0

    def _read(self, path: str) -> str:
        return _text(self._root / path)


def gfx(version: int) -> str:
    """The architecture that a number of the driver stands for.

    >>> gfx(90010), gfx(90402), gfx(110000), gfx(120001)
    ('gfx90a', 'gfx942', 'gfx1100', 'gfx1201')
    """
    return f"gfx{version // 10000}{version // 100 % 100:x}{version % 100:x}"


def _pairs(text: str) -> dict[str, int]:
    """`name number` in each line."""
    lines = (line.split() for line in text.splitlines())
    return {words[0]: int(words[1]) for words in lines if len(words) == 2 and words[1].isdigit()}


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
