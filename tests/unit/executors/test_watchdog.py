from __future__ import annotations

from typing import Any

import msgspec

from modelport.contract.executor import ReplicaStats
from modelport.core.executors.watchdog import Watchdog


def loaded(spec: Any, **changes: Any) -> Watchdog:
    changes = {"heartbeat_s": 1.0, "stuck_s": 10.0, "load_stall_s": 30.0} | changes
    watchdog = Watchdog(msgspec.structs.replace(spec, **changes), 0.0)
    watchdog.loaded(0.0)
    return watchdog


def test_a_load_may_take_long_while_it_tells_of_progress(spec: Any) -> None:
    watchdog = Watchdog(msgspec.structs.replace(spec, load_stall_s=30.0), 0.0)
    for minute in range(60):
        watchdog.loading("reading weights", minute * 20.0)
        assert watchdog.fault(minute * 20.0 + 19, 0) == ""
    assert watchdog.fault(59 * 20.0 + 31, 0) == "its load stalled: no progress for 31 s while reading weights"


def test_a_busy_worker_that_makes_progress_is_never_stuck(spec: Any) -> None:
    watchdog = loaded(spec)
    for second in range(100):
        watchdog.heartbeat(ReplicaStats(running=1, progress=second // 9), float(second))
        assert watchdog.fault(float(second), 1) == ""


def test_a_busy_worker_without_progress_is_stuck(spec: Any) -> None:
    watchdog = loaded(spec)
    for second in range(13):
        watchdog.heartbeat(ReplicaStats(running=1, progress=7), float(second))
    assert watchdog.fault(12.0, 1) == "it is stuck: its device made no progress for 12 s"


def test_a_stuck_device_is_seen_though_new_requests_are_still_prepared(spec: Any) -> None:
    watchdog = loaded(spec)
    for second in range(13):
        watchdog.heartbeat(ReplicaStats(running=1, progress=7, preparing=1, prepared=second), float(second))
    assert watchdog.fault(12.0, 1) == "it is stuck: its device made no progress for 12 s"


def test_a_stuck_pool_is_seen_though_nothing_reaches_the_device(spec: Any) -> None:
    watchdog = loaded(spec)
    for second in range(13):
        watchdog.heartbeat(ReplicaStats(progress=7, preparing=2, prepared=5), float(second))
    assert watchdog.fault(12.0, 2) == "it is stuck: its CPU pool made no progress for 12 s"


def test_zero_seconds_mean_that_nothing_is_ever_stuck(spec: Any) -> None:
    watchdog = loaded(spec, stuck_s=0.0)
    watchdog.heartbeat(ReplicaStats(running=1, progress=7), 1.0)
    watchdog.heartbeat(ReplicaStats(running=1, progress=7), 2.0)
    assert watchdog.fault(1e6, 1) == ""
    assert Watchdog(msgspec.structs.replace(spec, load_stall_s=0.0), 0.0).fault(1e6, 0) == ""


def test_an_idle_worker_makes_no_progress_and_is_well(spec: Any) -> None:
    watchdog = loaded(spec)
    for second in range(100):
        watchdog.heartbeat(ReplicaStats(progress=7), float(second))
    watchdog.heartbeat(ReplicaStats(running=1, progress=7), 100.0)
    assert watchdog.fault(105.0, 1) == ""


def test_a_worker_without_heartbeats_hangs(spec: Any) -> None:
    watchdog = loaded(spec)
    watchdog.heartbeat(ReplicaStats(), 5.0)
    assert watchdog.fault(15.0, 0) == ""
    assert watchdog.fault(17.0, 0) == "it hung: no sign of life for 12 s"


def test_a_busy_worker_over_its_memory_limit_gets_some_room(spec: Any) -> None:
    watchdog = loaded(spec, memory_limit_bytes=1000)
    watchdog.heartbeat(ReplicaStats(resident_bytes=1100), 1.0)
    assert watchdog.fault(1.0, open_calls=1) == ""
    assert watchdog.fault(1.0, open_calls=0) == "it held 1,100 bytes of memory, over its limit of 1,000"
    watchdog.heartbeat(ReplicaStats(resident_bytes=1300), 2.0)
    assert "1,300 bytes" in watchdog.fault(2.0, open_calls=1)
