"""AMD's devices as a backend."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping
from typing import ClassVar

from modelport.contract.device import Device, Probe
from modelport_backend_rocm.driver import Driver, Gpu
from modelport_torch.accelerator import GpuBackend, visible
from modelport_torch.installed import TorchBuild, torch_build, versions
from modelport_torch.quantised import FORMATS, Format

__all__ = ["RocmBackend", "dtypes_of", "why_not_built_for"]

# Chips with instructions for products of bfloat16; before them it is computed in float32, slowly.
_BFLOAT16 = ("gfx908", "gfx90a", "gfx94", "gfx95", "gfx11", "gfx12")


class RocmBackend(GpuBackend):
    """Every device that the amdgpu driver names, HIP's variables show and the installed torch was built for.

    Args:
        driver: Linux's; tests give one over a recorded tree.
        build: Says which torch is installed.
        environ: The variables of this process.
        system: The operating system's name.
    """

    name: ClassVar[str] = "rocm"
    rank: ClassVar[int] = 20
    visible_variable: ClassVar[str] = "HIP_VISIBLE_DEVICES"
    quantised: ClassVar[Mapping[str, Format]] = {
        name: FORMATS[name] for name in ("awq", "bitsandbytes", "compressed-tensors", "gptq", "hqq", "quanto")
    }

    def __init__(
        self,
        driver: Driver | None = None,
        build: Callable[[], TorchBuild] = torch_build,
        environ: Mapping[str, str] = os.environ,
        system: str = platform.system(),
    ) -> None:
        self._driver = driver or Driver()
        self._build = build
        self._environ = environ
        self._system = system

    def probe(self) -> Probe:
        """Reads the driver's files and torch's; nothing is imported and no device touched, so it takes a moment."""
        known = versions("torch", "transformers")
        if self._system != "Linux":
            return Probe(reason=f"this is {self._system}; AMD's devices are found on Linux only.", versions=known)
        if reason := self._driver.why_absent():
            return Probe(reason=reason, versions=known)
        known |= {"driver": self._driver.version}
        gpus = self._driver.gpus()
        if not gpus:
            return Probe(reason="the AMD driver is loaded, and finds no device that computes.", versions=known)
        seen = self._visible(gpus)
        if not seen:
            names = ("ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES")
            shown = " ".join(f"{name}={self._environ[name]}" for name in names if name in self._environ)
            return Probe(reason=f"{shown} hides all {len(gpus)} devices that the AMD driver finds.", versions=known)
        first = seen[0][1]
        build = self._build()
        if not build.hip:
            return Probe(reason=f"{first.name} is there, and torch is {build.kind}: install its ROCm build.", versions=known)
        known |= {"hip": build.hip}
        override = self._environ.get("HSA_OVERRIDE_GFX_VERSION")
        fit, refused = [], []
        for place, gpu in seen:
            why = self._driver.why_closed(gpu) or why_not_built_for(gpu, build, override)
            if why is None:
                fit.append((place, gpu))
            else:
                refused.append(why)
        devices = tuple(self._device(index, place, gpu) for index, (place, gpu) in enumerate(fit))
        return Probe(devices=devices, reason=" ".join(dict.fromkeys(refused)), versions=known)

    def handle(self, device: Device) -> str:
        return str(device.properties["hip_index"])

    def _visible(self, gpus: list[Gpu]) -> list[tuple[int, Gpu]]:
        """The devices that HIP would show, each with its number there: ROCR hides some first, and HIP counts what is left."""
        left = [gpus[place] for place in visible([gpu.unique_id for gpu in gpus], self._environ.get("ROCR_VISIBLE_DEVICES"))]
        wanted = self._environ.get("HIP_VISIBLE_DEVICES", self._environ.get("CUDA_VISIBLE_DEVICES"))
        return [(place, left[place]) for place in visible([gpu.unique_id for gpu in left], wanted)]

    def _device(self, index: int, place: int, gpu: Gpu) -> Device:
        return Device(
            backend=self.name,
            index=index,
            name=gpu.name,
            memory_total_bytes=gpu.total_bytes,
            memory_free_bytes=gpu.free_bytes,
            dtypes=dtypes_of(gpu.architecture),
            properties={
                "architecture": gpu.architecture,
                "chip": gpu.chip,
                "uuid": gpu.unique_id,
                "bus": gpu.bus,
                "hip_index": place,
                "driver": self._driver.version,
            },
        )


def dtypes_of(architecture: str) -> tuple[str, ...]:
    """Types that a chip of this architecture multiplies at full speed."""
    return ("float32", "bfloat16", "float16") if architecture.startswith(_BFLOAT16) else ("float32", "float16")


def why_not_built_for(gpu: Gpu, build: TorchBuild, override: str | None = None) -> str | None:
    """Why this torch has no kernels for a device, as a sentence, or None if it has, or if that cannot be told.

    `override` is HSA_OVERRIDE_GFX_VERSION (`10.3.0`): what a chip is to be taken for, at its owner's risk.
    """
    architecture = gpu.architecture
    parts = (override or "").split(".")
    if len(parts) == 3 and all(part.isdigit() for part in parts):
        architecture = f"gfx{int(parts[0])}{int(parts[1]):x}{int(parts[2]):x}"
    known = [name for name in build.architectures if name.startswith("gfx")]
    if not known or architecture in known:
        return None
    return (
        f"{gpu.name} is of the architecture {architecture}, and torch {build.version} was built for {', '.join(known)}: "
        "install a torch that was built for it."
    )
