"""Loading one deployment: the two plugins, the runner on the device thread, the session on the CPU pool."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from pathlib import Path
from typing import Any, Literal, TypeAlias

import msgspec

from modelport.contract.backend import LoadContext, Progress
from modelport.contract.errors import ConfigurationError, ModelFailed, ModelportError, OutOfMemory
from modelport.contract.executor import ReplicaSpec
from modelport.contract.program import Generate, step_name
from modelport.contract.reduce import DenseWeights, dense_reader, split_chain
from modelport.contract.runner import Limits, Runner
from modelport.contract.session import Session, SessionContext
from modelport.contract.skill import Skill
from modelport.core.worker.device import DeviceThread

__all__ = ["Deployment", "Lookup", "as_load_error", "find_plugin", "load"]

Lookup: TypeAlias = Callable[[Literal["backends", "skills"], str, str], Any]
"""`lookup(kind, name, module)`: the plugin object; `find_plugin` outside tests."""


def find_plugin(kind: Literal["backends", "skills"], name: str, module: str) -> Any:
    """The object that the plugin in `module` registers under `name`; no other plugin is imported.

    Raises:
        ConfigurationError: it cannot be used; the message says why.
    """
    from modelport.core.plugins.discover import load_one

    return load_one(kind, name, module)


class Deployment(msgspec.Struct, frozen=True, kw_only=True):
    """What has been loaded."""

    skill: Skill
    session: Session
    runner: Runner | None
    limits: Limits | None
    facts: dict[str, str]
    dense: dict[str, DenseWeights]
    load_s: float


async def load(
    spec: ReplicaSpec,
    lookup: Lookup,
    device: DeviceThread,
    pool: Executor,
    progress: Progress,
) -> Deployment:
    """Loads `spec`. `progress` is called on several threads.

    Raises:
        ModelportError: in a sentence; what had been loaded is left to `DeviceThread.close`.
    """
    loop = asyncio.get_running_loop()
    began = time.monotonic()
    progress(f"importing {spec.skill}", 0.0)
    skill: Skill = await loop.run_in_executor(pool, lookup, "skills", spec.skill, spec.skill_module)
    served = {task.name for task in skill.tasks}
    unknown = [task for task in spec.tasks if task not in served]
    if unknown or not spec.tasks:
        raise ConfigurationError(
            f"Skill {spec.skill!r} does not serve {unknown or 'any task asked'}; it serves {sorted(served)}."
        )
    folders = ({"main": Path(spec.card.path)} if spec.card.path else {}) | dict(spec.checkpoints)
    runner: Runner | None = None
    limits: Limits | None = None
    facts: dict[str, str] = {}
    if spec.backend and spec.program is not None:
        progress(f"importing {spec.backend}", 0.0)
        runner = await device.call(_load_runner, spec, lookup, folders, progress)
        device.use(runner)
        # Libraries have strings of their own kind (torch's version is one), which do not travel.
        limits, facts = runner.limits, {str(key): str(value) for key, value in runner.facts.items()}
        facts |= {f"reduction.{entry}": text for entry, text in _left_to_core(spec, limits).items()}
    elif spec.program is not None:
        raise ConfigurationError(f"Model {spec.name!r} has a program and no backend to run it on.")
    progress("preparing the session", 1.0)
    context = SessionContext(
        card=spec.card,
        task=spec.tasks[0],
        tasks=spec.tasks,
        program=spec.program,
        limits=limits,
        checkpoints=folders,
        options=spec.skill_options,
    )
    session = await loop.run_in_executor(pool, skill.session, context)
    dense = {name: dense_reader(folder) for name, folder in folders.items()}
    load_s = time.monotonic() - began
    return Deployment(skill=skill, session=session, runner=runner, limits=limits, facts=facts, dense=dense, load_s=load_s)


def as_load_error(spec: ReplicaSpec, error: BaseException) -> ModelportError:
    """`error` as a sentence for the placement record."""
    if isinstance(error, ModelportError):
        return error
    where = f" on {spec.backend}" if spec.backend else ""
    if isinstance(error, MemoryError):
        detail = f" ({error})" if str(error) else ""
        return OutOfMemory(f"Model {spec.name!r} does not fit into memory{where}{detail}.")
    return ModelFailed(f"Loading model {spec.name!r}{where} raised {type(error).__name__}: {error}")


def _load_runner(spec: ReplicaSpec, lookup: Lookup, folders: Mapping[str, Path], progress: Progress) -> Runner:
    backend = lookup("backends", spec.backend, spec.backend_module)
    assert spec.program is not None
    context = LoadContext(
        card=spec.card,
        program=spec.program,
        checkpoints=dict(folders),
        devices=spec.devices,
        dtype=spec.dtype,
        threads=spec.threads,
        max_length=spec.max_length,
        max_items=spec.max_items,
        cache_bytes=spec.cache_bytes,
        options=spec.backend_options,
    )
    runner: Runner = backend.load(context, progress)
    return runner


def _left_to_core(spec: ReplicaSpec, limits: Limits) -> dict[str, str]:
    """Which reductions of which entry the core does, for the placement record."""
    assert spec.program is not None
    left: dict[str, str] = {}
    for name, entry in spec.program.entries.items():
        if isinstance(entry, Generate):
            continue
        steps = [step_name(step) for output in entry.outputs for step in split_chain(output.chain, limits.reductions)[1]]
        if steps:
            left[name] = f"{', '.join(dict.fromkeys(steps))} by the core, after the run"
    return left
