"""The GPU of an Apple chip as a backend."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, ClassVar

from modelport.contract.backend import LoadContext
from modelport.contract.device import Device, Probe
from modelport.contract.errors import ConfigurationError
from modelport_backend_mps.fallback import Fallbacks
from modelport_backend_mps.host import Host
from modelport_torch.backend import TorchBackend
from modelport_torch.installed import TorchBuild, torch_build, versions

if TYPE_CHECKING:
    import torch

__all__ = ["MpsBackend"]

_SYSTEMS = {"Darwin": "macOS"}
_OLDEST = (14, 0)


class MpsBackend(TorchBackend):
    """One device, whose memory is the system's.

    Args:
        host: The machine; tests give one that answers otherwise.
        build: Says which torch is installed.
    """

    name: ClassVar[str] = "mps"
    rank: ClassVar[int] = 30
    cache_share: ClassVar[float] = 0.5

    def __init__(self, host: Host | None = None, build: Callable[[], TorchBuild] = torch_build) -> None:
        self._host = host or Host()
        self._build = build
        self._fallbacks = Fallbacks()

    def probe(self) -> Probe:
        """Asks the system; torch is not imported."""
        host, known = self._host, versions("torch", "transformers")
        if host.system != "Darwin" or host.machine != "arm64":
            system = _SYSTEMS.get(host.system, host.system)
            here = f"{system} on {host.machine}" if host.system == "Darwin" else system
            return Probe(reason=f"this is {here}; MPS exists on Apple silicon only.", versions=known)
        version = "{}.{}".format(*host.macos)
        known |= {"macos": version}
        if host.macos < _OLDEST:
            reason = f"this is macOS {version}, and torch's MPS needs macOS {_OLDEST[0]} or newer: update the system."
            return Probe(reason=reason, versions=known)
        if not self._build().version:
            return Probe(reason=f"{host.chip()} is there, and torch is not installed: pip install torch.", versions=known)
        budget, (total, available) = host.budget_bytes(), host.memory()
        device = Device(
            backend=self.name,
            name=host.chip(),
            memory_total_bytes=budget,
            memory_free_bytes=min(budget, available),
            dtypes=("float32", "bfloat16", "float16"),
            properties={"macos": version, "unified_memory": True, "system_memory_bytes": total},
        )
        return Probe(devices=(device,), versions=known)

    def lacks(self, dtype: str, device: Device) -> str | None:
        """Of torch's types it has no float64."""
        if dtype != "float64":
            return None
        return "MPS has no float64: use float32, or the backend cpu."

    def environment(self, devices: Sequence[Device], threads: int) -> dict[str, str]:
        """As every torch backend's; operators that MPS lacks run on the processor instead of failing, and are reported."""
        return super().environment(devices, threads) | {"PYTORCH_ENABLE_MPS_FALLBACK": "1"}

    def prepare(self, context: LoadContext) -> None:
        """Listens for operators that fall back; they are met when the loaded model is first tried.

        Raises:
            ConfigurationError: this torch cannot use the device.
        """
        super().prepare(context)
        import torch

        if not torch.backends.mps.is_available():
            why = "was built without MPS" if not torch.backends.mps.is_built() else "does not find the device"
            raise ConfigurationError(f"torch {torch.__version__} {why}; install torch for Apple silicon, or use the backend cpu.")
        self._fallbacks.listen()

    def report(self, context: LoadContext) -> dict[str, str]:
        """The chip, operators that run on the processor, and how much of the memory this process holds."""
        import torch

        return {
            "hardware": context.devices[0].name,
            "on_the_processor": ", ".join(self._fallbacks.operators) or "nothing so far",
            "device_bytes": str(torch.mps.driver_allocated_memory()),
        }

    def torch_device(self, device: Device) -> torch.device:
        import torch

        return torch.device("mps")

    def free_bytes(self, device: Device) -> int:
        """What Metal recommends to hold at most, less what this process holds, if the system has as much to give."""
        import torch

        mine = torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
        return max(min(mine, self._host.memory()[1]), 0)
