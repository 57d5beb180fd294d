"""A piece of hardware that a backend can run programs on."""

from __future__ import annotations

import msgspec

__all__ = ["Device", "Probe"]


class Device(msgspec.Struct, frozen=True, kw_only=True):
    """One device, as its backend's probe described it.

    `index` counts within the backend. `memory_free_bytes` is a reading taken at the probe, not a promise.
    `dtypes` are the compute types it runs at full speed (`float32`, `bfloat16`, …), fastest safe one last asked.
    `properties` is for people: driver versions, core counts, instruction sets. `emulated: True` among them says that its speed
    is not a device's, and nothing is learned from it.
    """

    backend: str
    index: int = 0
    name: str
    memory_total_bytes: int
    memory_free_bytes: int
    dtypes: tuple[str, ...] = ("float32",)
    properties: dict[str, str | int | float | bool] = {}

    @property
    def id(self) -> str:
        """`backend:index`, the name used in configuration, logs and metrics."""
        return f"{self.backend}:{self.index}"


class Probe(msgspec.Struct, frozen=True, kw_only=True):
    """What a backend's probe found. No devices and a reason is an answer, not an error.

    Beside devices, the reason says why there are others that it cannot use.
    """

    devices: tuple[Device, ...] = ()
    reason: str = ""
    versions: dict[str, str] = {}
