"""What becomes of requests whose device fails them."""

from __future__ import annotations

import asyncio

import pytest

from modelport.contract.errors import DeviceFailed, NotNumbers

NAN = NotNumbers("The device computed NaN.")


async def test_requests_move_to_the_next_place_and_the_record_says_why(world):
    here = await world(backends={"fast": 10, "slow": 100})
    here.executor.broken["fast"] = NAN
    assert (await here.ask(text="one")).result.text == "one"
    assert [replica.spec.backend for replica in here.executor.replicas] == ["fast", "slow"]
    placement = here.host.placement(here.anyone, "a")
    assert placement["backend"] == "slow"
    assert "fast:0: its device failed 3 times in a row, the last with: The device computed NaN" in placement["decision"]
    assert here.ledger.of("device_failed") == [("a", "fast")] * 3
    assert here.ledger.of("fell_back") == [("a", "slow")]


async def test_a_crowd_whose_device_fails_is_answered_elsewhere_to_the_last(world):
    here = await world(backends={"fast": 10, "slow": 100})
    here.executor.broken["fast"] = NAN
    replies = await asyncio.gather(*(here.ask(text=str(i)) for i in range(20)))
    assert [reply.result.text for reply in replies] == [str(i) for i in range(20)]
    assert here.executor.cut_off == []


async def test_one_failure_among_successes_moves_nothing(world):
    here = await world(backends={"fast": 10, "slow": 100})
    await here.ask()
    here.executor.answers = False
    replica = here.replica()
    for _ in range(5):
        answer = here.ask()
        await here.settle()
        replica.fail(replica.seen[-1].id, NAN)
        replica.finish(replica.seen[-1].id)
        assert (await answer).result.text == "hi"
    assert [replica.spec.backend for replica in here.executor.replicas] == ["fast"]


async def test_under_strict_the_caller_gets_the_error_and_the_worker_is_replaced_after_three(world):
    here = await world({"a": {"strict": True}}, backends={"fast": 10, "slow": 100})
    here.executor.broken["fast"] = NAN
    for _ in range(3):
        with pytest.raises(DeviceFailed, match="NaN"):
            await here.ask()
    await here.settle()
    assert here.state() == "unloaded"
    del here.executor.broken["fast"]
    assert (await here.ask()).result.text == "hi"
    assert [replica.spec.backend for replica in here.executor.replicas] == ["fast", "fast"]


async def test_where_every_place_fails_the_caller_hears_of_it_in_the_end(world):
    here = await world(backends={"fast": 10, "slow": 100})
    here.executor.broken = {"fast": NAN, "slow": NAN}
    with pytest.raises(DeviceFailed, match="NaN"):
        await here.ask()
    assert len(here.executor.replicas) <= 3


async def test_a_stream_that_has_begun_is_not_begun_again(world):
    here = await world(backends={"fast": 10, "slow": 100})
    here.executor.answers = False
    stream = here.ask_stream()
    await here.settle()
    replica = here.replica()
    replica.delta(replica.seen[0].id, "he")
    stream = await stream
    replica.fail(replica.seen[0].id, NAN)
    assert (await anext(stream)).text == "he"
    with pytest.raises(DeviceFailed, match="NaN"):
        await anext(stream)
    assert len(replica.seen) == 1


async def test_a_place_that_failed_is_tried_again_after_a_while(world):
    here = await world(backends={"fast": 10, "slow": 100})
    here.executor.broken["fast"] = NAN
    await here.ask()
    del here.executor.broken["fast"]
    await here.host.unload(here.anyone, "a")
    here.clock.turn(301)
    await here.ask()
    assert here.replica().spec.backend == "fast"


async def test_one_request_that_no_place_can_bear_leaves_a_device_that_works_alone(world):
    here = await world(backends={"fast": 10, "slow": 100})
    await here.ask()
    here.executor.broken["fast"] = NAN
    with pytest.raises(NotNumbers):
        await here.ask(text="poison")
    del here.executor.broken["fast"]
    assert (await here.ask()).result.text == "hi"
    assert [replica.spec.backend for replica in here.executor.replicas] == ["fast"]


async def test_a_lost_device_is_left_at_once(world):
    here = await world(backends={"fast": 10, "slow": 100})
    await here.ask()
    here.executor.broken["fast"] = DeviceFailed("The device has fallen off the bus.")
    assert (await here.ask()).result.text == "hi"
    assert here.ledger.of("device_failed") == [("a", "fast")]
    assert here.replica().spec.backend == "slow"
