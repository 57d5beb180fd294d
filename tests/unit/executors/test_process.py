"""The process executor, with real children."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import psutil
import pytest

from modelport.contract.errors import (
    Cancelled,
    ConfigurationError,
    DeadlineExceeded,
    InvalidRequest,
    ModelFailed,
    ModelportError,
    Unavailable,
)
from modelport.contract.executor import FailedPart, ResultPart
from modelport.core.executors.environment import worker_environment
from modelport.core.executors.process import ProcessExecutor


def until_dead(pid: int) -> None:
    """Returns when a process that is not our child has ended, reaped or not."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process, deadline = psutil.Process(pid), time.monotonic() + 10
        while process.status() != psutil.STATUS_ZOMBIE and time.monotonic() < deadline:
            time.sleep(0.01)
        assert process.status() == psutil.STATUS_ZOMBIE


async def test_a_call_is_answered_by_another_process(caller: Any, odd: Any) -> None:
    result = await caller.send(odd.OddRequest(text="hello")).result()
    assert result.text == "hello"
    assert result.pid != os.getpid()


@pytest.mark.parametrize("size", [0, 1000, 70_000, 1_000_000])
async def test_an_array_of_any_size_comes_back_equal(caller: Any, odd: Any, size: int) -> None:
    array = np.arange(size, dtype=np.float32)
    result = await caller.send(odd.OddRequest(array=array)).result()
    assert np.array_equal(array, result.array)


async def test_many_large_arrays_at_once_come_back_equal_and_leave_no_descriptors(caller: Any, odd: Any) -> None:
    await caller.send(odd.OddRequest()).result()
    before = psutil.Process().num_fds()
    arrays = [np.full(200_000, index, np.float32) for index in range(40)]
    answers = [caller.send(odd.OddRequest(array=array)) for array in arrays]
    for array, answer in zip(arrays, answers, strict=True):
        assert np.array_equal(array, (await answer.result()).array)
    assert psutil.Process().num_fds() == before
    held = (await caller.send(odd.OddRequest(do="descriptors")).result()).text.split()
    assert len(held) < 30


async def test_a_stream_arrives_in_order_and_ends_without_a_result(caller: Any, odd: Any) -> None:
    answer = caller.send(odd.OddRequest(do="stream", text="slowly", count=20), stream=True)
    assert await answer.result() is None
    assert "".join(delta.text for delta in answer.deltas) == "".join(f"{index} " for index in range(20))
    assert answer.has_started


async def test_a_stream_read_plainly_is_joined_by_the_worker(caller: Any, odd: Any) -> None:
    answer = caller.send(odd.OddRequest(do="stream", count=3))
    assert (await answer.result()).text == "0 1 2 "
    assert answer.deltas == []


async def test_deltas_of_one_moment_are_merged_beyond_sixty_four(caller: Any, odd: Any) -> None:
    answer = caller.send(odd.OddRequest(do="stream", count=1000), stream=True)
    await answer.result()
    assert len(answer.deltas) <= 64
    assert "".join(delta.text for delta in answer.deltas) == "".join(f"{index} " for index in range(1000))


async def test_a_stream_of_a_skill_that_gives_a_result_only_ends_with_it(caller: Any, odd: Any) -> None:
    answer = caller.send(odd.OddRequest(text="whole"), stream=True)
    assert (await answer.result()).text == "whole"


@pytest.mark.parametrize(
    ("do", "kind", "says"),
    [
        ("refuse", InvalidRequest, "text is not to be liked"),
        ("raise", ModelFailed, "RuntimeError: the skill's own fault"),
        ("raise badly", ModelFailed, "ran out of memory over this request \\(no room\\)"),
        ("wrong result", ModelFailed, "yielded a dict"),
        ("wrong field", ModelFailed, "not what the task 'odd' declares"),
        ("unsendable", ModelFailed, "cannot be sent"),
        ("nothing", ModelFailed, "yielded nothing"),
    ],
)
async def test_an_error_is_a_sentence_and_harms_no_other_call(
    caller: Any, odd: Any, do: str, kind: type[ModelportError], says: str
) -> None:
    with pytest.raises(kind, match=says) as caught:
        await caller.send(odd.OddRequest(do=do)).result()
    assert "Traceback" not in str(caught.value)
    assert (await caller.send(odd.OddRequest(text="next")).result()).text == "next"


async def test_a_request_that_no_frame_can_hold_is_the_callers_fault(caller: Any, odd: Any) -> None:
    with pytest.raises(InvalidRequest, match="surrogates not allowed"):
        await caller.send(odd.OddRequest(text="half a smile: \ud83d")).result()
    assert (await caller.send(odd.OddRequest(text="next")).result()).text == "next"


async def test_the_field_at_fault_crosses_the_boundary(caller: Any, odd: Any) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await caller.send(odd.OddRequest(do="refuse")).result()
    assert caught.value.param == "text"


async def test_a_task_that_is_not_served_fails_the_call(caller: Any, odd: Any) -> None:
    with pytest.raises(Unavailable):
        await caller.send(odd.OddRequest(), task="other").result()


async def test_a_cancelled_call_ends_at_once_and_frees_its_place(caller: Any, odd: Any, owner: Any) -> None:
    answer = caller.send(odd.OddRequest(do="for ever"), stream=True)
    await answer.until(lambda: answer.deltas)
    caller.replica.cancel(1)
    with pytest.raises(Cancelled):
        await answer.result()
    count = len(answer.parts)
    await owner.until(lambda: owner.stats_seen[-1].running == 0)
    assert len(answer.parts) == count


async def test_cancelling_an_unknown_call_changes_nothing(caller: Any, odd: Any) -> None:
    caller.replica.cancel(999)
    assert (await caller.send(odd.OddRequest(text="still here")).result()).text == "still here"


async def test_a_deadline_ends_a_call_in_the_worker(caller: Any, odd: Any) -> None:
    with pytest.raises(DeadlineExceeded, match=r"0\.05 seconds"):
        await caller.send(odd.OddRequest(do="wait"), deadline_s=0.05).result()


async def test_drain_returns_when_no_call_is_open(caller: Any, odd: Any) -> None:
    answer = caller.send(odd.OddRequest(do="stream", text="slowly", count=20), stream=True)
    await caller.replica.drain()
    assert isinstance(answer.end, ResultPart)


async def test_stop_ends_the_process_fails_open_calls_and_says_what_came_back(caller: Any, odd: Any, owner: Any) -> None:
    pid = (await caller.send(odd.OddRequest()).result()).pid
    answer = caller.send(odd.OddRequest(do="wait"))
    came_back = await caller.replica.stop()
    assert came_back > 1_000_000
    assert not psutil.pid_exists(pid)
    with pytest.raises(Unavailable, match="unloaded"):
        await answer.result()
    with pytest.raises(Unavailable):
        await caller.send(odd.OddRequest()).result()
    assert owner.deaths == []
    assert await caller.replica.stop() == came_back


async def test_stop_takes_what_the_worker_started_with_it(caller: Any, odd: Any) -> None:
    orphan = (await caller.send(odd.OddRequest(do="orphan")).result()).pid
    assert psutil.pid_exists(orphan)
    await caller.replica.stop()
    await asyncio.to_thread(until_dead, orphan)


# ---------------------------------------------------------------------------------------------------------- sudden ends


async def test_a_worker_killed_in_mid_call_fails_what_had_started_and_lists_the_rest(caller: Any, odd: Any, owner: Any) -> None:
    pid = (await caller.send(odd.OddRequest()).result()).pid
    aboard = caller.send(odd.OddRequest(do="wait on the pool"))
    waiting = caller.send(odd.OddRequest(do="wait"))
    await aboard.until(lambda: aboard.has_started)
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(ModelFailed, match="ended while it worked on this request"):
        await aboard.result()
    await owner.until(lambda: owner.deaths)
    cause, unstarted = owner.deaths[0]
    assert "killed by signal 9 (SIGKILL" in cause.message
    assert unstarted == [3]
    assert waiting.parts == []
    assert len(owner.deaths) == 1


async def test_answers_sent_before_the_end_still_arrive(caller: Any, odd: Any, owner: Any) -> None:
    answers = [caller.send(odd.OddRequest(text=str(index))) for index in range(50)]
    last = caller.send(odd.OddRequest(do="kill"))
    await owner.until(lambda: owner.deaths)
    assert [(await answer.result()).text for answer in answers] == [str(index) for index in range(50)]
    assert isinstance(last.end, FailedPart)


async def test_a_worker_that_exits_leaves_its_last_lines_to_the_operator_only(caller: Any, odd: Any, owner: Any) -> None:
    answer = caller.send(odd.OddRequest(do="exit"))
    await owner.until(lambda: owner.deaths)
    cause = owner.deaths[0][0]
    assert cause.message.endswith("exited with status 3.")
    assert any("last words" in note for note in cause.__notes__)
    assert isinstance(answer.end, FailedPart)
    assert "last words" not in answer.end.error.message


async def test_a_worker_stuck_in_c_code_is_killed_and_replaced_by_nothing(
    executor: Any, spec: Any, owner: Any, odd: Any, call_to: Any
) -> None:
    replica = executor.replica(msgspec.structs.replace(spec, stuck_s=0.4), owner)
    ready = await replica.start()
    caller = call_to(replica)
    answer = caller.send(odd.OddRequest(do="hold the interpreter"))
    await owner.until(lambda: owner.deaths)
    assert "it hung: no sign of life" in owner.deaths[0][0].message
    assert not psutil.pid_exists(ready.pid)
    assert answer.end is None or isinstance(answer.end, FailedPart)


async def test_a_worker_that_makes_no_progress_while_busy_is_stuck(
    executor: Any, spec: Any, owner: Any, odd: Any, call_to: Any
) -> None:
    replica = executor.replica(msgspec.structs.replace(spec, stuck_s=0.3), owner)
    await replica.start()
    answer = call_to(replica).send(odd.OddRequest(do="wait on the pool"))
    await owner.until(lambda: owner.deaths)
    assert "it is stuck: its device made no progress" in owner.deaths[0][0].message
    with pytest.raises(ModelFailed):
        await answer.result()


async def test_a_worker_that_leaks_is_ended_with_the_figure_named(
    executor: Any, spec: Any, owner: Any, odd: Any, call_to: Any
) -> None:
    replica = executor.replica(msgspec.structs.replace(spec, memory_limit_bytes=200_000_000), owner)
    await replica.start()
    caller = call_to(replica)
    for _ in range(20):
        answer = caller.send(odd.OddRequest(do="leak", count=20_000_000))
        await owner.until(lambda answer=answer: owner.deaths or answer.end)
        if owner.deaths:
            break
    await owner.until(lambda: owner.deaths)
    assert "over its limit of 200,000,000" in owner.deaths[0][0].message


async def test_a_worker_that_prints_without_end_goes_on_answering(caller: Any, odd: Any) -> None:
    await caller.send(odd.OddRequest(do="flood")).result()
    began = time.monotonic()
    for index in range(50):
        assert (await caller.send(odd.OddRequest(text=str(index))).result()).text == str(index)
    assert time.monotonic() - began < 10


async def test_a_worker_dies_with_its_server(tmp_path: Path, odd: Any) -> None:
    script = tmp_path / "server.py"
    script.write_text(
        "import asyncio, sys, os\n"
        "from modelport.contract.card import ModelCard\n"
        "from modelport.contract.executor import ReplicaSpec\n"
        "from modelport.core.executors.process import ProcessExecutor\n"
        "class Owner:\n"
        "    def progress(self, *a): pass\n"
        "    stats = died = progress\n"
        "async def main():\n"
        "    spec = ReplicaSpec(name='odd', card=ModelCard(name='odd'), skill='odd', skill_module='odd_plugin', tasks=('odd',))\n"
        "    ready = await ProcessExecutor().replica(spec, Owner()).start()\n"
        "    print(ready.pid, flush=True)\n"
        "    await asyncio.sleep(3600)\n"
        "asyncio.run(main())\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(odd.__file__).parent)}
    server = await asyncio.create_subprocess_exec(sys.executable, str(script), stdout=asyncio.subprocess.PIPE, env=environment)
    assert server.stdout is not None
    pid = int(await asyncio.wait_for(server.stdout.readline(), 20))
    worker = psutil.Process(pid)
    server.kill()
    await server.wait()
    await asyncio.to_thread(worker.wait, 10)
    assert not worker.is_running()


# --------------------------------------------------------------------------------------------------------------- loading


async def test_a_load_that_raises_is_a_sentence_and_leaves_no_process(
    executor: Any, spec: Any, owner: Any, children: Any
) -> None:
    replica = executor.replica(msgspec.structs.replace(spec, skill_options={"load": "raise"}), owner)
    with pytest.raises(ModelFailed, match="Loading model 'odd' raised RuntimeError: cannot be loaded"):
        await replica.start()
    assert children() == set()


async def test_a_worker_that_dies_while_loading_is_named_with_its_last_line(executor: Any, spec: Any, owner: Any) -> None:
    replica = executor.replica(msgspec.structs.replace(spec, skill_options={"load": "die"}), owner)
    with pytest.raises(ModelFailed, match=r"exited with status 1\. Its last line was: libdriver\.so: not found"):
        await replica.start()
    assert owner.deaths == []


async def test_a_load_without_progress_is_ended(executor: Any, spec: Any, owner: Any, children: Any) -> None:
    stalled = msgspec.structs.replace(spec, skill_options={"load": "hang"}, load_stall_s=3.0)
    with pytest.raises(ModelFailed, match=r"its load stalled: no progress for \d+ s while preparing the session"):
        await executor.replica(stalled, owner).start()
    assert children() == set()


async def test_a_load_that_is_cancelled_leaves_no_process(executor: Any, spec: Any, owner: Any, children: Any) -> None:
    start = asyncio.ensure_future(executor.replica(msgspec.structs.replace(spec, skill_options={"load": "hang"}), owner).start())
    await owner.until(lambda: "preparing the session" in owner.said)
    start.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start
    assert children() == set()


async def test_an_unknown_plugin_says_which_one(executor: Any, spec: Any, owner: Any) -> None:
    unknown = msgspec.structs.replace(spec, backend="none", backend_module="no_such_backend", program=None, skill_options={})
    bad = msgspec.structs.replace(unknown, tasks=("dance",))
    with pytest.raises(ConfigurationError, match=r"does not serve \['dance'\]"):
        await executor.replica(bad, owner).start()


async def test_an_interpreter_that_is_not_there_is_a_sentence(executor: Any, spec: Any, owner: Any) -> None:
    replica = executor.replica(msgspec.structs.replace(spec, interpreter="/nowhere/python"), owner)
    with pytest.raises(ConfigurationError, match="'/nowhere/python' cannot be started"):
        await replica.start()


async def test_versions_that_do_not_fit_are_refused_with_both_numbers() -> None:
    from modelport.core.worker import protocol

    mine, theirs = protocol.hello(), msgspec.structs.replace(protocol.hello(), frame=99)
    with pytest.raises(ConfigurationError, match=r"frame format is 1 here and 99 in the worker"):
        protocol.check_hello(mine, theirs, "the worker")
    with pytest.raises(ConfigurationError, match=r"plugin skills/odd is 1\.0 here and 2\.0 in the server"):
        protocol.check_hello(protocol.hello({"skills/odd": "1.0"}), protocol.hello({"skills/odd": "2.0"}), "the server")


# ----------------------------------------------------------------------------------------------------------- environment


async def test_a_worker_gets_no_secrets_and_no_descriptors(
    executor: ProcessExecutor, spec: Any, owner: Any, odd: Any, call_to: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HF_TOKEN", "OPENAI_API_KEY", "AWS_SECRET_ACCESS_KEY", "MODELPORT_AUTH__KEYS_FILE"):
        monkeypatch.setenv(name, "secret")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    given = {**spec.environment, "REMOTE_API_KEY": "wanted"}
    replica = executor.replica(msgspec.structs.replace(spec, environment=given), owner)
    await replica.start()
    variables = dict(
        line.split("=", 1)
        for line in (await call_to(replica).send(odd.OddRequest(do="environment")).result()).text.splitlines()
        if "=" in line
    )
    assert not {"HF_TOKEN", "OPENAI_API_KEY", "AWS_SECRET_ACCESS_KEY", "MODELPORT_AUTH__KEYS_FILE"} & set(variables)
    assert variables["REMOTE_API_KEY"] == "wanted"
    assert variables["TOKENIZERS_PARALLELISM"] == "false"
    assert variables["OMP_WAIT_POLICY"] == "PASSIVE"


def test_a_setting_of_the_user_wins_over_our_default() -> None:
    assert worker_environment({"OMP_WAIT_POLICY": "ACTIVE"}, {})["OMP_WAIT_POLICY"] == "ACTIVE"
    assert worker_environment({"OMP_WAIT_POLICY": "ACTIVE"}, {"OMP_WAIT_POLICY": "PASSIVE"})["OMP_WAIT_POLICY"] == "PASSIVE"


# ------------------------------------------------------------------------------------------------------------- life cycle


async def test_many_starts_and_stops_leave_nothing_behind(
    executor: ProcessExecutor, spec: Any, odd: Any, call_to: Any, new_owner: Any
) -> None:
    async def cycle(kill: bool) -> None:
        owner = new_owner()
        replica = executor.replica(spec, owner)
        ready = await replica.start()
        await call_to(replica).send(odd.OddRequest(array=np.zeros(100_000))).result()
        if kill:
            os.kill(ready.pid, signal.SIGKILL)
            await owner.until(lambda: owner.deaths)
        await replica.stop()

    await cycle(kill=False)
    me = psutil.Process()
    before = (me.num_fds(), me.num_threads(), len(me.children()))
    for index in range(8):
        await cycle(kill=index % 2 == 1)
    assert (me.num_fds(), me.num_threads(), len(me.children())) == before
