"""NVIDIA's devices as a backend."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

from modelport.contract.device import Device, Probe
from modelport_backend_cuda.driver import Driver, DriverFailed, Gpu
from modelport_torch.accelerator import GpuBackend, visible
from modelport_torch.installed import TorchBuild, torch_build, versions
from modelport_torch.quantised import FORMATS, Format

__all__ = ["CudaBackend", "dtypes_of", "why_not_built_for"]

# Pascal's other chips multiply float16 at a sixty-fourth of their speed.
_FAST_FLOAT16 = {(5, 3), (6, 0), (6, 2)}


class CudaBackend(GpuBackend):
    """Every device that NVIDIA's driver names, `CUDA_VISIBLE_DEVICES` shows and the installed torch was built for.

    Args:
        driver: NVIDIA's; tests give one that answers from a record.
        build: Says which torch is installed.
        environ: The variables of this process.
    """

    name: ClassVar[str] = "cuda"
    rank: ClassVar[int] = 10
    visible_variable: ClassVar[str] = "CUDA_VISIBLE_DEVICES"
    quantised: ClassVar[Mapping[str, Format]] = FORMATS

    def __init__(
        self,
        driver: Driver | None = None,
        build: Callable[[], TorchBuild] = torch_build,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self._driver = driver or Driver()
        self._build = build
        self._environ = environ

    def probe(self) -> Probe:
        """Asks the driver, and reads torch's files; neither imports torch nor makes a context, so it takes a moment."""
        known = versions("torch", "transformers")
        try:
            with self._driver.opened() as driver:
                gpus, version, newest = driver.gpus(), driver.version, driver.cuda
        except DriverFailed as error:
            return Probe(reason=str(error), versions=known)
        known |= {"driver": version, "cuda": "{}.{}".format(*newest)}
        if not gpus:
            return Probe(reason=f"NVIDIA's driver {version} finds no device.", versions=known)
        wanted = self._environ.get(self.visible_variable)
        seen = [gpus[place] for place in visible([gpu.uuid for gpu in gpus], wanted)]
        if not seen:
            reason = f"CUDA_VISIBLE_DEVICES={wanted} hides all {len(gpus)} devices that NVIDIA's driver finds."
            return Probe(reason=reason, versions=known)
        build = self._build()
        if why_not := _why_not(build, newest, seen[0]):
            return Probe(reason=why_not, versions=known)
        refused = {gpu.uuid: why for gpu in seen if (why := why_not_built_for(gpu, build))}
        fit = [gpu for gpu in seen if gpu.uuid not in refused]
        devices = tuple(self._device(index, gpu, version) for index, gpu in enumerate(fit))
        return Probe(devices=devices, reason=" ".join(refused.values()), versions=known)

    def handle(self, device: Device) -> str:
        return str(device.properties["uuid"])

    def environment(self, devices: Sequence[Device], threads: int) -> dict[str, str]:
        """As every torch backend's, the devices, and an allocator whose reserve can grow: caches and batches of changing
        sizes leave fewer holes in it. Variables of that name that the server has stay as they are."""
        variables = super().environment(devices, threads) | {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
        is_set = {"PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"} & set(self._environ)
        if platform.system() == "Linux" and "microsoft" not in platform.release().lower() and not is_set:
            variables["PYTORCH_ALLOC_CONF"] = "expandable_segments:True"
        return variables

    def _device(self, index: int, gpu: Gpu, driver: str) -> Device:
        return Device(
            backend=self.name,
            index=index,
            name=gpu.name,
            memory_total_bytes=gpu.total_bytes,
            memory_free_bytes=gpu.free_bytes,
            dtypes=dtypes_of(gpu.capability),
            properties={
                "capability": "{}.{}".format(*gpu.capability),
                "uuid": gpu.uuid,
                "bus": gpu.bus,
                "driver": driver,
                "unified_memory": gpu.is_unified,
            },
        )


def dtypes_of(capability: tuple[int, int]) -> tuple[str, ...]:
    """Types that a device of this compute capability multiplies at full speed."""
    if capability >= (8, 0):
        return ("float32", "bfloat16", "float16")
    return ("float32", "float16") if capability >= (7, 0) or capability in _FAST_FLOAT16 else ("float32",)


def why_not_built_for(gpu: Gpu, build: TorchBuild) -> str | None:
    """Why this torch has no kernels for a device, as a sentence, or None if it has, or if that cannot be told.

    Kernels run on their own capability and on later ones of the same generation; `compute_` ones are compiled for any later one.
    """
    known = [found for name in build.architectures if (found := re.fullmatch(r"(sm|compute)_(\d+)(\d)([af]?)", name))]
    if not known:
        return None
    for kind, major, minor, only in (found.groups() for found in known):
        target = int(major), int(minor)
        same = target[0] == gpu.capability[0] and target <= gpu.capability
        if target == gpu.capability or (not only and same) or (only == "f" and same):
            return None
        if kind == "compute" and not only and target <= gpu.capability:
            return None
    return (
        f"{gpu.name} has compute capability {gpu.capability[0]}.{gpu.capability[1]}, and torch {build.version} was built for "
        f"{', '.join(build.architectures)}: install a torch that was built for it."
    )


def _why_not(build: TorchBuild, newest: tuple[int, int], first: Gpu) -> str | None:
    """Why this torch cannot use this driver at all, as a sentence, or None."""
    there = f"{first.name} is there, and torch is {build.kind}"
    if not build.version:
        return f"{there}: install torch with CUDA {newest[0]} or older."
    if build.hip:
        return f"{there}, which runs AMD's devices: install a torch that was built for CUDA {newest[0]} or older."
    if not build.cuda:
        return f"{there}: install one that was built for CUDA {newest[0]} or older."
    if int(build.cuda.partition(".")[0]) > newest[0]:
        return f"{there}, and the driver runs CUDA up to {newest[0]}.{newest[1]}: update the driver, or install an older torch."
    return None
