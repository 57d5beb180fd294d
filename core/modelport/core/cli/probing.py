"""Asking the backends for their devices, each in a process of its own."""

from __future__ import annotations

from collections.abc import Mapping

from modelport.contract.device import Probe
from modelport.core.cli.parts import Parts
from modelport.core.placement.hardware import Hardware

__all__ = ["probe"]


async def probe(parts: Parts) -> Mapping[str, Probe]:
    """What every enabled backend finds, by its name, the preferred first."""
    hardware = Hardware(parts.registry, parts.settings)
    await hardware.probe()
    return dict(sorted(hardware.probes.items(), key=lambda found: parts.registry.backends[found[0]].rank))
