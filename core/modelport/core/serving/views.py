"""What the host shows of placement and hardware, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from modelport.contract.backend import Backend
from modelport.contract.errors import Unavailable
from modelport.contract.host import ModelInfo
from modelport.core.catalog.families import Family
from modelport.core.placement.hardware import Hardware
from modelport.core.serving.deployment import Deployment
from modelport.core.serving.keeper import Keeper
from modelport.core.serving.model import Model
from modelport.core.serving.planning import Planning

__all__ = ["family_info", "hardware_view", "placement_view"]


def family_info(family: Family) -> ModelInfo:
    """A family as a model that nobody has asked for yet."""
    return ModelInfo(
        id=family.name,
        tasks=tuple(family.tasks),
        state="family",
        skill=family.skill,
        source=family.default_checkpoint,
        owned_by=family.default_checkpoint.partition("/")[0],
        model_type=family.model_type,
    )


def placement_view(model: Model, planning: Planning, hardware: Hardware) -> dict[str, Any]:
    """The decision of the model's default program, what skills said of it, and `others`: those of its other programs.

    Raises:
        Unavailable: nothing can be said before the hardware has been probed.
    """
    if model.choice is None:
        reason = model.error or "its checkpoint has not been read yet; load it, or ask it something"
        return {"model": model.name, "state": model.state, "decision": f"Not decided: {reason}", "candidates": [], "claims": []}
    records: list[dict[str, Any]] = []
    for deployment in model.deployments.values():
        record = deployment.record
        if record is None:
            if deployment.job.program is not None and not hardware.is_probed:
                raise Unavailable("The hardware is still being probed. Try again in a moment.", retry_after_s=1.0)
            record = planning.record(deployment.job, planning.decide(deployment.job))
        plain = msgspec.to_builtins(record)
        processes = [slot.ready.pid for slot in deployment.slots if slot.ready.pid]
        state = {"state": deployment.state, "replicas": len(deployment.slots), "processes": processes}
        records.append({**plain, **state, "error": _error(deployment)})
    first, *others = records
    return {**first, "claims": model.claims(), "why_skill": model.choice.reason, "others": others}


def hardware_view(backends: Mapping[str, Backend], hardware: Hardware, keeper: Keeper) -> list[dict[str, Any]]:
    """Every backend, the preferred first, with its devices or the reason why it has none."""
    budgets = hardware.budgets()
    found = []
    for name, backend in sorted(backends.items(), key=lambda item: (item[1].rank, item[0])):
        probe = hardware.probes.get(name)
        devices = [
            {
                "id": device.id,
                **msgspec.to_builtins(device),
                "budget_bytes": budgets[device.id],
                "models_bytes": keeper.used(device.id),
            }
            for device in (probe.devices if probe else ())
        ]
        found.append(
            {
                "backend": name,
                "rank": backend.rank,
                "devices": devices,
                "reason": probe.reason if probe else "it is being probed",
                "versions": dict(probe.versions) if probe else {},
            }
        )
    return found


def _error(deployment: Deployment) -> str:
    return deployment.reason if deployment.state == "failed" else ""
