"""Plans loads: decides the place, fetches what is missing, and describes the replica to its executor."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import psutil

from modelport.contract.errors import ConfigurationError
from modelport.contract.executor import Executor, Replica, ReplicaSpec
from modelport.contract.extension import Candidate
from modelport.core.catalog.catalog import Catalog
from modelport.core.config.settings import Settings
from modelport.core.placement.decide import Pick, Placement, decide
from modelport.core.placement.hardware import Hardware
from modelport.core.placement.hooks import Hooks
from modelport.core.placement.record import PlacementRecord, record_of
from modelport.core.plugins.registry import Registry
from modelport.core.serving.job import Job, Plan
from modelport.core.serving.learner import Learner
from modelport.core.serving.slot import Slot

__all__ = ["Planning"]

_BESIDE_MODELS = 2**30  # interpreter and libraries of a worker, which no budget of models counts


class Planning:
    """The planner of all deployments.

    Args:
        settings: The configuration.
        registry: Backends and skills.
        catalog: Fetches further checkpoints.
        hardware: What there is.
        executors: By name.
        hooks: `choose_placement`.
        learner: What was measured.
    """

    def __init__(
        self,
        settings: Settings,
        registry: Registry,
        catalog: Catalog,
        hardware: Hardware,
        executors: Mapping[str, Executor],
        hooks: Hooks,
        learner: Learner,
    ) -> None:
        self._settings = settings
        self._registry = registry
        self._catalog = catalog
        self._hardware = hardware
        self._executors = executors
        self._hooks = hooks
        self._learner = learner
        self._folders: dict[str, dict[str, Path]] = {}
        self._placements: dict[str, Placement] = {}

    async def plan(self, job: Job, failing: Mapping[str, str]) -> Plan:
        """Where to load, once the hardware is known and every checkpoint is here.

        Raises:
            ModelportError: a checkpoint cannot be had, or the configuration asks for what there is not.
        """
        self._executor(job)
        if job.program is not None:
            await self._hardware.probe()
            self._folders[job.name] = await self._catalog.folders(job.program, job.card)
        elif job.card.path:
            self._folders[job.name] = {"main": Path(job.card.path)}
        placement = self._placements[job.name] = self.decide(job, failing, partial(self._learner.place, job))
        return Plan(order=placement.order, record=self.record(job, placement), failing=failing)

    def decide(self, job: Job, failing: Mapping[str, str] | None = None, pick: Pick | None = None) -> Placement:
        """The decision as it would be now."""
        return decide(
            name=job.model,
            model=job.settings,
            card=job.card,
            program=job.program,
            backends=self._registry.backends,
            probes=self._hardware.probes,
            budgets=self._hardware.budgets(),
            hardware=job.hardware,
            measured=self._learner.measured(job),
            failing=failing,
            pick=pick,
            choose=self._hooks.choose_placement,
        )

    def record(self, job: Job, placement: Placement) -> PlacementRecord:
        """The record of a decision."""
        return record_of(job.model, job.skill, list(job.tasks), job.program, placement)

    def replica(self, job: Job, slot: Slot) -> Replica:
        """A replica for a slot, not started."""
        return self._executor(job).replica(self.spec(job, slot.candidate), slot)

    def loaded(self, job: Job, slot: Slot) -> None:
        """Notes what the load of a slot took: its next estimate."""
        self._learner.loaded(job, slot.place, slot.ready.load_s, slot.ready.memory_bytes)

    def spec(self, job: Job, place: Candidate) -> ReplicaSpec:
        """Everything that a worker needs to load `job` at `place`."""
        settings, model, backend = self._settings, job.settings, place.backend
        threads = model.threads or max(_cores() // model.replicas, 1)
        environment = dict(self._registry.backends[backend].environment(place.devices, threads)) if backend else {}
        return ReplicaSpec(
            name=job.name,
            card=job.card,
            skill=job.skill,
            skill_module=self._registry.modules["skills", job.skill],
            tasks=job.tasks,
            backend=backend,
            backend_module=self._registry.modules["backends", backend] if backend else "",
            program=job.program,
            checkpoints=self._folders.get(job.name, {}),
            devices=place.devices,
            dtype=model.dtype,
            threads=threads,
            max_length=model.max_length,
            max_items=model.max_items,
            backend_options={**settings.options("backends", backend), **model.backend_options} if backend else {},
            skill_options={**settings.options("skills", job.skill), **model.options},
            interpreter=model.interpreter or "",
            environment=environment,
            params_elsewhere=self._params_beside(job, backend),
            stuck_s=settings.limits.stuck_s,
            load_stall_s=settings.limits.load_stall_s,
            memory_limit_bytes=self._memory_limit(place),
        )

    def _params_beside(self, job: Job, backend: str) -> dict[str, frozenset[str]]:
        placement = self._placements.get(job.name)
        candidates = [weighed.candidate for weighed in placement.weighed] if placement is not None else []
        return {each.backend: each.verdict.params for each in candidates if each.verdict.runs and each.backend != backend}

    def _executor(self, job: Job) -> Executor:
        model = job.settings
        name = "thread" if model.isolation == "thread" else model.executor
        executor = self._executors.get(name)
        if executor is None:
            raise ConfigurationError(
                f"models.{job.model}.executor is {name!r}, which is not enabled. There are: {', '.join(sorted(self._executors))}."
            )
        return executor

    def _memory_limit(self, place: Candidate) -> int:
        """Resident bytes over which a worker counts as leaking: most of the host, or a budget that was set for host memory."""
        host = psutil.virtual_memory().total
        limit = int(host * self._settings.memory.fraction)
        named = self._settings.memory.budget_bytes
        for device in place.devices:
            budget = named.get(device.id) or named.get(device.backend)
            if budget and abs(device.memory_total_bytes - host) < 0.05 * host:
                limit = min(limit, budget + _BESIDE_MODELS)
        return limit


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
