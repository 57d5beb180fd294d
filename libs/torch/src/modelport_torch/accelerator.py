"""What torch's CUDA and HIP builds have in common: both call their devices `cuda`. Torch-free until a worker loads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from modelport.contract.backend import LoadContext
from modelport.contract.device import Device
from modelport.contract.errors import ConfigurationError
from modelport_torch.backend import TorchBackend

if TYPE_CHECKING:
    import torch

__all__ = ["GpuBackend", "held_by_graphs", "visible"]

_MIB = 1 << 20


class GpuBackend(TorchBackend):
    """A torch backend over devices that torch calls `cuda`, one of which each worker sees.

    Attributes:
        visible_variable: The variable that tells a process which devices it has.
    """

    runtime_bytes: ClassVar[int] = 700 * _MIB
    """Of the device: its context, the kernels' code, and the workspaces of its libraries."""

    cache_share: ClassVar[float] = 0.8
    visible_variable: ClassVar[str]

    def handle(self, device: Device) -> str:
        """What `visible_variable` calls a device."""
        raise NotImplementedError

    def environment(self, devices: Sequence[Device], threads: int) -> dict[str, str]:
        """As every torch backend's, and the devices that the worker sees: no other one gets a context of its own."""
        return super().environment(devices, threads) | {self.visible_variable: ",".join(map(self.handle, devices))}

    def torch_device(self, device: Device) -> torch.device:
        """The device by its identity; in a worker, which sees one, that one.

        Raises:
            ConfigurationError: torch does not see it.
        """
        import torch

        count = torch.cuda.device_count()
        if count == 1:
            return torch.device("cuda", 0)
        own = str(device.properties.get("uuid", "")).removeprefix("GPU-")
        for index in range(count):
            if own and own == str(getattr(torch.cuda.get_device_properties(index), "uuid", "")):
                return torch.device("cuda", index)
        if device.index < count:
            return torch.device("cuda", device.index)
        raise ConfigurationError(
            f"torch {torch.__version__} sees {count} devices, and {device.id} ({device.name}) is none of them: its driver may "
            "have failed since it was found. `modelport hardware` says what there is now."
        )

    def free_bytes(self, device: Device) -> int:
        """What the driver calls free, and what torch has reserved and does not use, but for what graphs need when they replay."""
        import torch

        where = self.torch_device(device)
        free, _ = torch.cuda.mem_get_info(where)
        idle = torch.cuda.memory_reserved(where) - torch.cuda.memory_allocated(where)
        return int(free) + idle - held_by_graphs(_segments(), where.index)[1]

    def prepare(self, context: LoadContext) -> None:
        """float32 means float32, unless `tf32` allows products of 19 bits: torch's convolutions would use them unasked."""
        super().prepare(context)
        import torch

        tf32 = bool(context.options.get("tf32", False))
        torch.set_float32_matmul_precision("high" if tf32 else "highest")
        torch.backends.cudnn.allow_tf32 = tf32
        torch.cuda.set_device(self.torch_device(context.devices[0]))

    def report(self, context: LoadContext) -> dict[str, str]:
        """The device's name and memory, once all is loaded; `device_bytes` is what this process holds, its context left out, and
        `graph_bytes` what of it is the graphs'."""
        import torch

        where = self.torch_device(context.devices[0])
        free, total = torch.cuda.mem_get_info(where)
        return {
            "hardware": context.devices[0].name,
            "device_memory": f"{free / 2**30:.1f} of {total / 2**30:.1f} GiB free when loaded",
            "device_bytes": str(torch.cuda.memory_reserved(where)),
            "graph_bytes": str(held_by_graphs(_segments(), where.index)[0]),
            "tf32": str(bool(context.options.get("tf32", False))).lower(),
        }


def _segments() -> list[dict[str, Any]]:
    import torch

    found: list[dict[str, Any]] = torch.cuda.memory_snapshot()  # type: ignore[no-untyped-call]
    return found


def held_by_graphs(segments: Iterable[Mapping[str, Any]], index: int | None) -> tuple[int, int]:
    """Bytes in the pools of graphs, and how many of them look idle: nobody else may have these, a replay writes to them.

    Args:
        segments: What torch's allocator says of itself (`torch.cuda.memory_snapshot`).
        index: The device's.

    >>> held_by_graphs([{"device": 0, "segment_pool_id": (0, 1), "total_size": 8, "allocated_size": 2}], 0)
    (8, 6)
    """
    pools = [part for part in segments if tuple(part["segment_pool_id"]) != (0, 0) and part["device"] == index]
    return sum(part["total_size"] for part in pools), sum(part["total_size"] - part["allocated_size"] for part in pools)


def visible(devices: Sequence[str], wanted: str | None) -> list[int]:
    """Places of those `devices` (identities, in the driver's order) that a variable like CUDA_VISIBLE_DEVICES lets a process see.

    As drivers read it: numbers, or identities that may be cut short; what follows the first entry that names nothing is
    ignored; unset means all.

    >>> visible(["GPU-aa", "GPU-bb"], "1,0"), visible(["GPU-aa", "GPU-bb"], "GPU-b"), visible(["GPU-aa"], "-1")
    ([1, 0], [1], [])
    """
    if wanted is None:
        return list(range(len(devices)))
    chosen: list[int] = []
    for entry in (part.strip() for part in wanted.split(",")):
        if entry.isdigit():
            named = [int(entry)] if int(entry) < len(devices) else []
        else:
            named = [place for place, identity in enumerate(devices) if entry and identity.startswith(entry)]
        if len(named) != 1 or named[0] in chosen:
            break
        chosen += named
    return chosen
