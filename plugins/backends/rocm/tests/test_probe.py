from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import modelport_backend_rocm as plugin
from modelport.contract import Generate, ModelCard, Program
from modelport_backend_rocm.backend import RocmBackend, dtypes_of
from modelport_backend_rocm.driver import Driver, gfx
from modelport_torch.installed import TorchBuild


@pytest.fixture
def chips(backend: Any) -> dict[str, Any]:
    return dict(backend.chips)


def test_plugin_registers_one_backend_after_cuda() -> None:
    (backend,) = plugin.register_backends()
    assert (backend.name, backend.rank) == ("rocm", 20)
    assert plugin.MODELPORT_CONTRACT == "1.0"


def test_importing_and_probing_need_neither_torch_nor_transformers() -> None:
    code = (
        "import sys, modelport_backend_rocm as p; p.register_backends()[0].probe();"
        "sys.exit(bool({'torch', 'transformers'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_device_is_described_by_the_drivers_files(backend: Any, chips: Any) -> None:
    probe = backend(chips["mi210"]).probe()
    (device,) = probe.devices
    assert (device.id, device.name) == ("rocm:0", "AMD Instinct MI210")
    assert device.memory_total_bytes == 68_702_699_520
    assert device.memory_free_bytes == 68_702_699_520 - 10_960_896
    assert device.dtypes == ("float32", "bfloat16", "float16")
    assert device.properties["architecture"] == "gfx90a"
    assert device.properties["bus"] == "0000:63:00.0"
    assert probe.versions["driver"] == "6.12.12"
    assert probe.versions["hip"] == "6.4.43484-123eb5128"


def test_device_without_a_marketing_name_is_called_by_its_architecture(backend: Any, chips: Any) -> None:
    (device,) = backend(chips["rx7900"]).probe().devices
    assert device.name == "AMD GPU gfx1100"
    assert device.properties["chip"] == "navi31"


def test_old_kernel_tells_the_memory_by_its_banks(backend: Any, chips: Any) -> None:
    chip = {name: value for name, value in chips["mi210"].items() if name != "used"}
    (device,) = backend(chip).probe().devices
    assert device.memory_total_bytes == device.memory_free_bytes == 68_702_699_520


@pytest.mark.parametrize(
    ("number", "name"), [(90006, "gfx906"), (90402, "gfx942"), (90500, "gfx950"), (100300, "gfx1030"), (110501, "gfx1151")]
)
def test_architecture_is_read_from_the_drivers_number(number: int, name: str) -> None:
    assert gfx(number) == name


def test_architecture_that_torch_was_not_built_for_is_refused_and_others_stay(backend: Any, chips: Any) -> None:
    probe = backend(chips["rx6700"], chips["rx7900"]).probe()
    assert [device.properties["architecture"] for device in probe.devices] == ["gfx1100"]
    assert "AMD GPU gfx1031 is of the architecture gfx1031, and torch 2.9.1+rocm6.4 was built for gfx900, gfx906" in probe.reason


def test_architecture_that_cannot_be_compared_is_tried(backend: Any, chips: Any) -> None:
    build = TorchBuild(version="2.9.1+rocm6.4", hip="6.4")
    assert backend(chips["rx6700"], build=build).probe().devices


def test_owner_may_have_a_chip_taken_for_another(backend: Any, chips: Any) -> None:
    assert backend(chips["rx6700"], HSA_OVERRIDE_GFX_VERSION="10.3.0").probe().devices


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (TorchBuild(version="2.14.0+cu130", cuda="13.0"), "torch is 2.14.0+cu130, built for CUDA 13.0: install its ROCm build."),
        (TorchBuild(version="2.13.0+cpu"), "torch is 2.13.0+cpu, a build without CUDA and ROCm: install its ROCm build."),
        (TorchBuild(), "torch is not installed: install its ROCm build."),
    ],
)
def test_torch_of_another_build_is_told_apart(backend: Any, chips: Any, build: TorchBuild, words: str) -> None:
    probe = backend(chips["mi210"], build=build).probe()
    assert not probe.devices
    assert probe.reason == f"AMD Instinct MI210 is there, and {words}"


def test_machine_without_the_driver_or_without_devices_says_which(tmp_path: Path, backend: Any) -> None:
    assert "no AMD driver is loaded" in RocmBackend(Driver(tmp_path), system="Linux").probe().reason
    (tmp_path / "sys/module/amdgpu").mkdir(parents=True)
    assert "without KFD" in RocmBackend(Driver(tmp_path), system="Linux").probe().reason
    assert backend().probe().reason == "the AMD driver is loaded, and finds no device that computes."


def test_other_systems_are_named() -> None:
    assert RocmBackend(system="Windows").probe().reason == "this is Windows; AMD's devices are found on Linux only."


def test_device_that_was_not_passed_into_the_container_is_named(backend: Any, chips: Any) -> None:
    assert "/dev/kfd is not: a container needs it" in backend(chips["mi210"], files=False).probe().reason


@pytest.mark.parametrize(
    ("environ", "architectures", "numbers"),
    [
        ({"HIP_VISIBLE_DEVICES": "1"}, ["gfx1100"], [1]),
        ({"HIP_VISIBLE_DEVICES": "1,0"}, ["gfx1100", "gfx90a"], [1, 0]),
        ({"CUDA_VISIBLE_DEVICES": "1"}, ["gfx1100"], [1]),  # HIP reads it too
        ({"ROCR_VISIBLE_DEVICES": "1"}, ["gfx1100"], [0]),  # HIP counts what is left
        ({"ROCR_VISIBLE_DEVICES": "1,0", "HIP_VISIBLE_DEVICES": "1"}, ["gfx90a"], [1]),
        ({"ROCR_VISIBLE_DEVICES": "GPU-19020b212d1f9a02"}, ["gfx1100"], [0]),
    ],
)
def test_visible_devices_are_respected(
    backend: Any, chips: Any, environ: dict[str, str], architectures: list[str], numbers: list[int]
) -> None:
    made = backend(chips["mi210"], chips["rx7900"], **environ)
    devices = made.probe().devices
    assert [device.properties["architecture"] for device in devices] == architectures
    assert [made.environment([device], 1)["HIP_VISIBLE_DEVICES"] for device in devices] == list(map(str, numbers))


def test_devices_that_are_all_hidden_are_named_as_hidden(backend: Any, chips: Any) -> None:
    probe = backend(chips["mi210"], HIP_VISIBLE_DEVICES="").probe()
    assert probe.reason == "HIP_VISIBLE_DEVICES= hides all 1 devices that the AMD driver finds."


def test_chips_without_bfloat16_widen_it(backend: Any, chips: Any) -> None:
    assert dtypes_of("gfx1030") == ("float32", "float16")
    assert dtypes_of("gfx942") == dtypes_of("gfx1201") == ("float32", "bfloat16", "float16")


def test_format_without_kernels_on_amd_is_refused(backend: Any, chips: Any) -> None:
    made = backend(chips["mi210"])
    card = ModelCard(name="m", quantization="fbgemm_fp8", weight_bytes=1 << 30)
    verdict = made.verdict(Program({"main": Generate()}), card, made.probe().devices)
    assert verdict.answer == "no"
    assert "rocm loads these formats only: awq, bitsandbytes" in verdict.reason
