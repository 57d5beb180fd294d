"""The thread executor: the same worker, in this process."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import weakref
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import numpy as np
import pytest

from modelport.contract.errors import Cancelled, ConfigurationError, ModelFailed, Unavailable
from modelport.contract.program import Program
from modelport.core.executors.thread import ThreadExecutor
from modelport.testing.fakes import NumpyBackend, NumpyRunner


@pytest.fixture
async def executor() -> AsyncIterator[ThreadExecutor]:  # type: ignore[override]
    executor = ThreadExecutor()
    yield executor
    await executor.close()


async def test_a_call_is_answered_in_this_process(caller: Any, odd: Any) -> None:
    array = np.arange(5)
    result = await caller.send(odd.OddRequest(text="hello", array=array)).result()
    assert (result.text, result.pid) == ("hello", os.getpid())
    assert result.array is array


async def test_a_stream_arrives_in_order(caller: Any, odd: Any) -> None:
    answer = caller.send(odd.OddRequest(do="stream", count=5), stream=True)
    assert await answer.result() is None
    assert [delta.text for delta in answer.deltas] == [f"{index} " for index in range(5)]


async def test_an_error_of_the_skill_fails_one_call(caller: Any, odd: Any) -> None:
    with pytest.raises(ModelFailed, match="RuntimeError: the skill's own fault"):
        await caller.send(odd.OddRequest(do="raise")).result()
    assert (await caller.send(odd.OddRequest(text="next")).result()).text == "next"


async def test_a_cancelled_call_ends_at_once(caller: Any, odd: Any) -> None:
    answer = caller.send(odd.OddRequest(do="wait"))
    caller.replica.cancel(1)
    with pytest.raises(Cancelled):
        await answer.result()
    await caller.replica.drain()


async def test_stop_fails_open_calls_and_ends_the_threads(
    executor: Any, spec: Any, odd: Any, call_to: Any, new_owner: Any
) -> None:
    before = set(threading.enumerate())
    replica = executor.replica(spec, new_owner())
    await replica.start()
    answer = call_to(replica).send(odd.OddRequest(do="wait"))
    await replica.stop()
    with pytest.raises(Unavailable):
        await answer.result()
    for thread in threading.enumerate():
        if thread.name.startswith("modelport-"):
            thread.join(10)
    assert set(threading.enumerate()) <= before
    assert await replica.stop() >= 0


async def test_a_stopped_replica_and_all_that_it_loaded_can_be_collected(executor: Any, spec: Any, new_owner: Any) -> None:
    replica = executor.replica(spec, new_owner())
    await replica.start()
    await replica.stop()
    for thread in threading.enumerate():
        if thread.name.startswith("modelport-"):
            thread.join(10)
    gone = weakref.ref(replica)
    del replica
    executor.replica(spec, new_owner())
    gc.collect()
    assert gone() is None


async def test_a_load_that_is_given_up_leaves_no_thread(executor: Any, spec: Any, owner: Any, odd: Any) -> None:
    slow = threading.Event()
    odd.Odd.session = lambda self, context: slow.wait(10) and odd.OddSession(context)
    replica = executor.replica(spec, owner)
    loading = asyncio.ensure_future(replica.start())
    await owner.until(lambda: owner.said)
    loading.cancel()
    await asyncio.sleep(0.05)
    slow.set()
    with pytest.raises(asyncio.CancelledError):
        async with asyncio.timeout(10):
            await loading


async def test_a_load_that_raises_is_a_sentence(executor: Any, spec: Any, owner: Any) -> None:
    with pytest.raises(ModelFailed, match="raised RuntimeError: cannot be loaded"):
        await executor.replica(msgspec.structs.replace(spec, skill_options={"load": "raise"}), owner).start()


async def test_stats_come_with_the_heartbeat(caller: Any, owner: Any) -> None:
    await owner.until(lambda: len(owner.stats_seen) > 2)
    assert owner.stats_seen[-1].resident_bytes > 0


async def test_the_server_refuses_a_backend_that_imports_torch(spec: Any, owner: Any, odd: Any) -> None:
    class Torchy(NumpyBackend):
        name = "torchy"
        imports_torch = True

    executor = ThreadExecutor(lambda kind, name, module: odd.Odd() if kind == "skills" else Torchy(), in_server=True)
    wants = msgspec.structs.replace(spec, backend="torchy", program=Program({}))
    with pytest.raises(ConfigurationError, match=r"Backend 'torchy' imports torch.*isolation"):
        await executor.replica(wants, owner).start()
    await executor.close()


async def test_a_load_is_charged_with_what_it_took_of_a_device_with_memory_of_its_own(spec: Any, owner: Any, odd: Any) -> None:
    class BoardRunner(NumpyRunner):
        facts = {"device_bytes": "7000000000"}

    class Board(NumpyBackend):
        def load(self, context: Any, progress: Any) -> Any:
            return BoardRunner(context, self.limits)

    executor = ThreadExecutor(lambda kind, name, module: odd.Odd() if kind == "skills" else Board())
    ready = await executor.replica(msgspec.structs.replace(spec, backend="board", program=Program({})), owner).start()
    assert ready.memory_bytes == 7_000_000_000
    await executor.close()
