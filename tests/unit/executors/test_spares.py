"""Spare workers: started after a load, taken by the next one that they fit."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import msgspec
import psutil
import pytest

from modelport.contract.executor import ReplicaSpec
from modelport.core.executors.process import ProcessExecutor
from modelport.core.executors.spares import Spares
from modelport.core.worker.loading import find_plugin


async def until(condition: Callable[[], Any]) -> None:
    """Waits for what the loop tells nobody of."""
    async with asyncio.timeout(20):
        for _ in itertools.count():
            if condition():
                return
            await asyncio.sleep(0.01)


@pytest.fixture
async def make() -> AsyncIterator[Callable[..., tuple[ProcessExecutor, Spares]]]:
    async with AsyncExitStack() as stack:

        def executor(most: int = 1, replicas: int | None = None, free: int = 1 << 40) -> tuple[ProcessExecutor, Spares]:
            spares = Spares(most, find_plugin, calm_s=0.0, free_bytes=lambda: free)
            made = ProcessExecutor(most=replicas, spares=spares)
            stack.push_async_callback(made.close)
            return made, spares

        yield executor


async def test_the_next_load_takes_the_spare_which_has_imported_what_is_heavy(
    make: Any, spec: ReplicaSpec, new_owner: Any, call_to: Any, odd: Any
) -> None:
    executor, spares = make()
    first = executor.replica(spec, new_owner())
    await first.start()
    await until(lambda: spares.pids)
    (spare,) = spares.pids
    second = executor.replica(msgspec.structs.replace(spec, name="second"), new_owner())
    ready = await second.start()
    assert ready.pid == spare
    caller = call_to(second)
    assert (await caller.send(odd.OddRequest(do="imported", text="colorsys")).result()).text == "True"
    assert (await call_to(first).send(odd.OddRequest(do="imported", text="colorsys")).result()).text == "False"
    assert (await caller.send(odd.OddRequest(text="hello")).result()).pid == spare


async def test_the_death_of_what_was_a_spare_is_its_owners_to_know(make: Any, spec: ReplicaSpec, new_owner: Any) -> None:
    executor, spares = make()
    await executor.replica(spec, new_owner()).start()
    await until(lambda: spares.pids)
    owner = new_owner()
    ready = await executor.replica(spec, owner).start()
    os.kill(ready.pid, signal.SIGKILL)
    await owner.until(lambda: owner.deaths)
    assert "SIGKILL" in owner.deaths[0][0].message


async def test_a_spare_of_another_kind_is_ended(make: Any, spec: ReplicaSpec, new_owner: Any) -> None:
    executor, spares = make()
    await executor.replica(spec, new_owner()).start()
    await until(lambda: spares.pids)
    (spare,) = spares.pids
    other = msgspec.structs.replace(spec, environment={**spec.environment, "OMP_NUM_THREADS": "3"})
    ready = await executor.replica(other, new_owner()).start()
    assert ready.pid != spare
    await until(lambda: not psutil.pid_exists(spare))
    await until(lambda: spares.pids)  # and one of the new kind follows
    assert (await executor.replica(other, new_owner()).start()).pid not in (ready.pid, spare)


async def test_a_spare_that_dies_is_forgotten(make: Any, spec: ReplicaSpec, new_owner: Any) -> None:
    executor, spares = make()
    await executor.replica(spec, new_owner()).start()
    await until(lambda: spares.pids)
    (spare,) = spares.pids
    os.kill(spare, signal.SIGKILL)
    await until(lambda: not spares.pids)
    assert (await executor.replica(spec, new_owner()).start()).pid != spare


@pytest.mark.parametrize("why", [{"most": 0}, {"replicas": 1}, {"free": 1 << 30}])
async def test_no_spare_is_kept_where_none_is_wanted_or_there_is_no_room(
    why: dict[str, int], make: Any, spec: ReplicaSpec, new_owner: Any
) -> None:
    executor, spares = make(**why)
    before = {child.pid for child in psutil.Process().children()}
    ready = await executor.replica(spec, new_owner()).start()
    assert spares._timer is None or why.get("free")
    await until(lambda: spares._timer is None)
    assert {child.pid for child in psutil.Process().children()} - before == {ready.pid}


async def test_closing_ends_the_spare(make: Any, spec: ReplicaSpec, new_owner: Any) -> None:
    executor, spares = make()
    await executor.replica(spec, new_owner()).start()
    await until(lambda: spares.pids)
    (spare,) = spares.pids
    await executor.close()
    assert not psutil.pid_exists(spare)
