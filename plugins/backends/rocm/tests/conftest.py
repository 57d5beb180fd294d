"""Trees of files as Linux's amdgpu driver shows them under /sys: of the form of those recorded on such machines."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from modelport_backend_rocm.backend import RocmBackend
from modelport_backend_rocm.driver import Driver
from modelport_torch.installed import TorchBuild

PROCESSOR = (
    "cpu_cores_count 64\nsimd_count 0\nmem_banks_count 1\ngfx_target_version 0\nvendor_id 0\ndevice_id 0\ndrm_render_minor 0\n"
)
GPU = """cpu_cores_count 0
simd_count {simds}
mem_banks_count 1
wave_front_size 64
gfx_target_version {version}
vendor_id 4098
device_id 29711
location_id {location}
domain 0
drm_render_minor {minor}
num_sdma_engines 2
local_mem_size 0
unique_id {unique}
num_xcc 1
max_engine_clk_ccompute 2450
"""
HIP_BUILD = TorchBuild(
    version="2.9.1+rocm6.4",
    hip="6.4.43484-123eb5128",
    architectures=(
        "gfx900",
        "gfx906",
        "gfx908",
        "gfx90a",
        "gfx942",
        "gfx1030",
        "gfx1100",
        "gfx1101",
        "gfx1102",
        "gfx1200",
        "gfx1201",
    ),
)
MI210: dict[str, Any] = {
    "version": 90010,
    "chip": "aldebaran",
    "product": "AMD Instinct MI210",
    "vram": 68702699520,
    "used": 10960896,
}
RX7900: dict[str, Any] = {"version": 110000, "chip": "navi31", "vram": 25753026560, "used": 1254137856}
RX6700: dict[str, Any] = {"version": 100301, "chip": "navi22", "vram": 12868124672, "used": 34000896}


def write_tree(root: Path, gpus: list[Mapping[str, Any]], *, files: bool = True) -> Path:
    """A machine with two processors and these devices."""
    nodes = root / "sys/class/kfd/kfd/topology/nodes"
    (root / "sys/module/amdgpu").mkdir(parents=True)
    (root / "sys/module/amdgpu/version").write_text("6.12.12\n")
    if files:
        (root / "dev/dri").mkdir(parents=True)
        (root / "dev/kfd").touch()
    for index in range(2):
        (nodes / str(index)).mkdir(parents=True)
        (nodes / str(index) / "properties").write_text(PROCESSOR)
    for place, gpu in enumerate(gpus):
        minor, node = 128 + place, nodes / str(2 + place)
        (node / "mem_banks/0").mkdir(parents=True)
        (node / "name").write_text(f"{gpu['chip']}\n")
        location = (0x63 + place) << 8
        unique = 0x1902_0B21_2D1F_9A01 + place
        (node / "properties").write_text(
            GPU.format(simds=416, version=gpu["version"], minor=minor, location=location, unique=unique)
        )
        (node / "mem_banks/0/properties").write_text(f"heap_type 1\nsize_in_bytes {gpu['vram']}\nflags 0\nwidth 4096\n")
        device = root / f"sys/class/drm/renderD{minor}/device"
        device.mkdir(parents=True)
        if "used" in gpu:
            (device / "mem_info_vram_total").write_text(f"{gpu['vram']}\n")
            (device / "mem_info_vram_used").write_text(f"{gpu['used']}\n")
        if "product" in gpu:
            (device / "product_name").write_text(f"{gpu['product']}\n")
        if files:
            (root / f"dev/dri/renderD{minor}").touch()
    return root


@pytest.fixture
def backend(tmp_path: Path) -> Callable[..., RocmBackend]:
    """`backend(MI210, …, build=…, HIP_VISIBLE_DEVICES="0")`: the backend on a machine with these devices."""

    def make(*gpus: Mapping[str, Any], build: TorchBuild = HIP_BUILD, files: bool = True, **environ: str) -> RocmBackend:
        root = tmp_path / str(len(list(tmp_path.iterdir())))
        write_tree(root, list(gpus), files=files)
        return RocmBackend(Driver(root), lambda: build, environ, "Linux")

    make.chips = {"mi210": MI210, "rx7900": RX7900, "rx6700": RX6700}  # type: ignore[attr-defined]
    return make
