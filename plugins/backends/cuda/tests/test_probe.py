from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import psutil
import pynvml
import pytest

import modelport_backend_cuda as plugin
from modelport_backend_cuda.backend import CudaBackend, dtypes_of, why_not_built_for
from modelport_backend_cuda.driver import Gpu
from modelport_torch.installed import TorchBuild

Make = Callable[..., CudaBackend]
OLD = TorchBuild(version="2.7.1+cu118", cuda="11.8", architectures=("sm_50", "sm_60", "sm_70", "sm_80", "sm_90", "compute_90"))


def test_plugin_registers_one_backend_named_as_its_entry_point() -> None:
    (backend,) = plugin.register_backends()
    assert (backend.name, backend.rank) == ("cuda", 10)
    assert backend.imports_torch
    assert plugin.MODELPORT_CONTRACT == "1.0"


def test_importing_and_probing_need_neither_torch_nor_transformers() -> None:
    code = (
        "import sys, modelport_backend_cuda as p; assert 'pynvml' not in sys.modules; p.register_backends()[0].probe();"
        "sys.exit(bool({'torch', 'transformers'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_device_is_described_by_the_drivers_figures(backend: Make) -> None:
    probe = backend("h200").probe()
    assert [device.id for device in probe.devices] == ["cuda:0", "cuda:1"]
    first = probe.devices[0]
    assert first.name == "NVIDIA H200"
    assert (first.memory_total_bytes, first.memory_free_bytes) == (150_754_820_096, 150_106_603_520)
    assert first.dtypes == ("float32", "bfloat16", "float16")
    assert first.properties["capability"] == "9.0"
    assert first.properties["driver"] == probe.versions["driver"] == "580.95.05"
    assert probe.versions["cuda"] == "13.0"
    assert not probe.reason


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, "no NVIDIA driver is installed"),
        (pynvml.NVML_ERROR_DRIVER_NOT_LOADED, "installed and not loaded"),
        (pynvml.NVML_ERROR_NO_PERMISSION, "may not open"),
        (pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH, "restart the machine"),
        (pynvml.NVML_ERROR_GPU_IS_LOST, "does not work: GPU is lost"),
    ],
)
def test_driver_that_cannot_be_asked_is_a_reason(backend: Make, code: int, words: str) -> None:
    probe = backend({"error": code}).probe()
    assert not probe.devices
    assert words in probe.reason


def test_driver_without_devices_says_so(backend: Make) -> None:
    probe = backend({"driver": "570.1", "cuda": 12080, "devices": []}).probe()
    assert probe.reason == "NVIDIA's driver 570.1 finds no device."


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (TorchBuild(), "torch is not installed: install torch with CUDA 13"),
        (TorchBuild(version="2.13.0+cpu"), "2.13.0+cpu, a build without CUDA and ROCm: install one that was built for CUDA 13"),
        (TorchBuild(version="2.9.0+rocm6.4", hip="6.4.1"), "built for ROCm (HIP 6.4.1), which runs AMD's devices"),
        (TorchBuild(version="3.0.0", cuda="14.0"), "built for CUDA 14.0, and the driver runs CUDA up to 13.0: update the driver"),
    ],
)
def test_device_that_this_torch_cannot_use_is_not_found_and_the_reason_names_both(
    backend: Make, build: TorchBuild, words: str
) -> None:
    probe = backend("h200", build).probe()
    assert not probe.devices
    assert probe.reason.startswith("NVIDIA H200 is there, and torch is ")
    assert words in probe.reason


def test_chip_without_kernels_is_left_out_with_the_reason_and_others_stay(backend: Make) -> None:
    probe = backend("mixed").probe()
    assert [(device.id, device.name) for device in probe.devices] == [
        ("cuda:0", "Tesla T4"),
        ("cuda:1", "NVIDIA GeForce RTX 4090"),
    ]
    assert probe.devices[0].dtypes == ("float32", "float16")
    assert "GTX 1080 Ti has compute capability 6.1, and torch 2.14.0+cu130 was built for sm_75, sm_80" in probe.reason


@pytest.mark.parametrize(
    ("capability", "build", "runs"),
    [
        ((8, 9), ("sm_80", "sm_86"), True),  # later of the same generation
        ((8, 0), ("sm_86",), False),  # earlier
        ((10, 0), ("sm_80", "sm_90"), False),  # another generation
        ((10, 0), ("sm_90", "compute_90"), True),  # compiled when it is loaded
        ((9, 0), ("sm_90a",), True),
        ((9, 1), ("sm_90a",), False),  # only for that very one
        ((10, 3), ("sm_100f",), True),  # for its family
        ((3, 5), (), True),  # not known
    ],
)
def test_kernels_run_on_their_generation(capability: tuple[int, int], build: tuple[str, ...], runs: bool) -> None:
    gpu = Gpu(uuid="GPU-1", name="A chip", capability=capability, total_bytes=1, free_bytes=1)
    assert (why_not_built_for(gpu, TorchBuild(version="2", cuda="12.8", architectures=build)) is None) == runs


def test_older_torch_runs_older_and_newer_chips(backend: Make) -> None:
    assert len(backend("mixed", OLD).probe().devices) == 3


@pytest.mark.parametrize(
    ("value", "names"),
    [
        ("2,1", ["NVIDIA GeForce RTX 4090", "Tesla T4"]),
        ("GPU-3333", ["NVIDIA GeForce RTX 4090"]),
        ("1,7,2", ["Tesla T4"]),  # what follows a number that names nothing is not seen
        ("1,1", ["Tesla T4"]),
    ],
)
def test_visible_devices_are_respected_in_their_order(backend: Make, value: str, names: list[str]) -> None:
    probe = backend("mixed", CUDA_VISIBLE_DEVICES=value).probe()
    assert [device.name for device in probe.devices] == names
    assert [device.index for device in probe.devices] == list(range(len(names)))


@pytest.mark.parametrize("value", ["", "-1", "9", "NoDevFiles"])
def test_devices_that_are_all_hidden_are_named_as_hidden(backend: Make, value: str) -> None:
    probe = backend("mixed", CUDA_VISIBLE_DEVICES=value).probe()
    assert probe.reason == f"CUDA_VISIBLE_DEVICES={value} hides all 3 devices that NVIDIA's driver finds."


def test_parts_that_mig_makes_are_devices_of_their_own(backend: Make) -> None:
    made = backend("mig", OLD)
    devices = made.probe().devices
    assert [device.memory_total_bytes for device in devices] == [42_144_366_592, 10_200_547_328]
    assert made.environment(devices[1:], 1)["CUDA_VISIBLE_DEVICES"].startswith("MIG-2e2c8d91")


def test_chip_that_shares_the_hosts_memory_has_the_hosts(backend: Make) -> None:
    (device,) = backend("spark").probe().devices
    assert device.properties["unified_memory"] is True
    assert device.memory_total_bytes == psutil.virtual_memory().total


def test_worker_sees_its_own_device_by_its_identity(backend: Make) -> None:
    made = backend("h200")
    environment = made.environment(made.probe().devices[1:], 3)
    assert environment["CUDA_VISIBLE_DEVICES"] == "GPU-8e1f60aa-44ab-1d21-8bd3-6a0f5be2c702"
    assert environment["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    assert environment["OMP_NUM_THREADS"] == "3"


def test_allocator_settings_of_the_server_are_not_overwritten(backend: Make) -> None:
    own = backend("h200", PYTORCH_CUDA_ALLOC_CONF="backend:cudaMallocAsync")
    assert "PYTORCH_ALLOC_CONF" not in own.environment(own.probe().devices[:1], 1)
    if sys.platform == "linux":
        assert "expandable_segments" in backend("h200").environment(own.probe().devices[:1], 1)["PYTORCH_ALLOC_CONF"]


@pytest.mark.parametrize(
    ("capability", "dtypes"),
    [
        ((5, 2), "float32"),
        ((5, 3), "float32 float16"),
        ((6, 0), "float32 float16"),
        ((6, 1), "float32"),
        ((7, 5), "float32 float16"),
        ((8, 0), "float32 bfloat16 float16"),
        ((12, 0), "float32 bfloat16 float16"),
    ],
)
def test_types_follow_the_compute_capability(capability: tuple[int, int], dtypes: str) -> None:
    assert dtypes_of(capability) == tuple(dtypes.split())
