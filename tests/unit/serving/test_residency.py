"""Who stays in memory: the pure decision against an obvious one, and the whole room on a random walk."""

from __future__ import annotations

import asyncio
import itertools
import random

import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st

from modelport.contract import ConfigurationError, Unavailable
from modelport.core.serving.residency import Evictions, Refusal, Resident, Thrashing, Wait, make_room

residents = st.lists(
    st.builds(
        dict,
        state=st.sampled_from(["loading", "idle", "held", "busy", "draining"]),
        memory=st.dictionaries(st.sampled_from(["gpu:0", "gpu:1"]), st.integers(1, 10), min_size=1),
        last_used=st.integers(0, 5),
        pinned=st.booleans(),
    ),
    max_size=5,
)


@settings(max_examples=400, deadline=None)
@given(residents, st.dictionaries(st.sampled_from(["gpu:0", "gpu:1"]), st.integers(0, 12), min_size=1), st.integers(1, 20))
def test_the_plan_is_right_for_every_situation(tables, wanted, budget):
    everyone = [Resident(name=str(number), **table) for number, table in enumerate(tables)]
    budgets = {"gpu:0": budget, "gpu:1": budget}
    plan = make_room("new", wanted, everyone, budgets)

    def fits(gone):
        left = [resident for resident in everyone if resident.name not in gone]
        return all(need + sum(r.memory.get(d, 0) for r in left) <= budgets[d] or not need for d, need in wanted.items())

    may_go = [resident.name for resident in everyone if resident.state == "idle" and not resident.pinned]
    pinned = {resident.name for resident in everyone if resident.pinned}
    ways = [set(way) for size in range(len(may_go) + 1) for way in itertools.combinations(may_go, size) if fits(set(way))]
    if isinstance(plan, Evictions):
        gone = set(plan.names)
        assert gone <= set(may_go), "only what is idle and not pinned goes"
        assert fits(gone)
        assert not any(way < gone for way in ways), "nobody goes in vain"
    elif isinstance(plan, Wait):
        assert not ways
        assert fits({resident.name for resident in everyone} - pinned), "waiting can help"
        assert plan.names
        assert not set(plan.names) & pinned
    else:
        assert isinstance(plan, Refusal)
        assert not fits({resident.name for resident in everyone} - pinned)


def test_the_longest_unused_goes_first():
    everyone = [
        Resident(name=name, state="idle", memory={"d": 4}, last_used=used) for name, used in (("new", 9), ("old", 1), ("mid", 5))
    ]
    assert make_room("x", {"d": 4}, everyone, {"d": 12}) == Evictions(("old",))
    assert make_room("x", {"d": 8}, everyone, {"d": 12}) == Evictions(("old", "mid"))


def test_a_refusal_says_what_to_change():
    plan = make_room(
        "x", {"d": 5_000_000}, [Resident(name="p", state="idle", memory={"d": 6_000_000}, pinned=True)], {"d": 10_000_000}
    )
    assert isinstance(plan, Refusal)
    assert plan.reason == (
        "'x' needs 5.0 MB on d, whose models may hold 10.0 MB, of which 6.0 MB are pinned (p). "
        "Raise memory.budget_bytes, lower its max_length or max_items, or unpin."
    )


def test_two_models_that_evict_each_other_before_their_loads_pay_off_are_thrashing():
    watch = Thrashing()
    assert not watch.evicted("a", "b", resident_s=5, load_s=10)
    assert watch.evicted("b", "a", resident_s=5, load_s=10)
    assert not watch.evicted("a", "b", resident_s=500, load_s=10), "a long stay is no thrashing"
    assert not watch.evicted("b", "a", resident_s=5, load_s=10)


async def test_the_least_recently_used_model_makes_room(world):
    here = await world({"a": {}, "b": {}, "c": {}}, need=40, memory={"budget_bytes": {"cpu": 100}})
    for model in ("a", "b", "a", "c"):
        here.clock.turn(1)
        await here.ask(model)
    assert [here.state(model) for model in "abc"] == ["ready", "unloaded", "ready"]


async def test_a_pinned_model_stays_and_the_refusal_names_it(world):
    here = await world({"a": {"pin": True}, "b": {}}, need=60, memory={"budget_bytes": {"cpu": 100}})
    await here.ask("a")
    with pytest.raises(Unavailable, match=r"pinned \(a\)"):
        await here.ask("b")
    assert here.state("a") == "ready"


async def test_a_load_waits_while_the_others_are_busy_and_nothing_is_lost(world):
    here = await world({"a": {}, "b": {}}, need=60, memory={"budget_bytes": {"cpu": 100}})
    here.executor.answers = False
    first = here.ask("a", "first")
    await here.settle()
    second = here.ask("b", "second")
    await here.settle()
    assert [here.state(model) for model in "ab"] == ["busy", "loading"]
    replica = here.replica("a")
    here.executor.answers = True
    replica.finish(replica.seen[0].id)
    assert [(await first).result.text, (await second).result.text] == ["first", "second"]
    assert [here.state(model) for model in "ab"] == ["unloaded", "ready"]


async def test_a_load_that_waits_in_vain_says_for_what_and_then_gives_up(world):
    here = await world({"a": {}, "b": {}}, need=60, memory={"budget_bytes": {"cpu": 100}}, limits={"load_wait_s": 60})
    here.executor.answers = False
    here.ask("a")
    await here.settle()
    waiting = here.ask("b")
    await here.settle()
    here.clock.turn(61)
    with pytest.raises(Unavailable, match="waiting for room: 'a' must become idle"):
        await waiting
    await here.settle()
    assert here.state("b") == "unloaded", "nobody wants it any more"
    assert here.state("a") == "busy"


async def test_a_model_that_is_never_idle_makes_way_between_two_requests(world):
    here = await world({"a": {}, "b": {}}, need=60, memory={"budget_bytes": {"cpu": 100}})
    here.executor.answers = False
    first = here.ask("a", "first")
    await here.settle()
    other = here.ask("b", "other")
    await here.settle()
    here.clock.turn(6)  # longer than the keeper's patience
    await here.settle()
    later = here.ask("a", "later")
    await here.settle()
    replica = here.replica("a")
    assert [call.request.text for call in replica.seen] == ["first"], "the later one waits for its next turn"
    here.executor.answers = True
    replica.finish(replica.seen[0].id)
    assert [(await answer).result.text for answer in (first, other, later)] == ["first", "other", "later"]


async def test_thrashing_is_reported(world):
    here = await world({"a": {}, "b": {}}, need=60, memory={"budget_bytes": {"cpu": 100}})
    with structlog.testing.capture_logs() as logs:
        for model in "aba":
            here.clock.turn(1)
            await here.ask(model)
    assert any(line["event"] == "thrashing" and sorted(line["models"]) == ["a", "b"] for line in logs)
    assert "evict each other" in here.host.placement(here.anyone, "b")["notes"][0]


async def test_models_that_thrash_stay_for_a_while_and_the_other_waits(world):
    here = await world({"a": {}, "b": {}}, need=60, memory={"budget_bytes": {"cpu": 100}})
    for model in "aba":
        here.clock.turn(1)
        await here.ask(model)
    waiting = here.ask("b")
    await here.settle()
    assert [here.state(model) for model in "ab"] == ["ready", "loading"], "the load of a took 2 s, so it stays for 10"
    assert (await here.ask("a")).result.text == "hi"
    here.clock.turn(10.1)
    assert (await waiting).result.text == "hi"


def test_a_hold_ends_no_thrashing():
    watch = Thrashing()
    for victim, wanted_by in (("a", "b"), ("b", "a")):
        watch.evicted(victim, wanted_by, resident_s=1, load_s=2)
    for victim, wanted_by in (("a", "b"), ("b", "a")) * 3:
        held = watch.hold_s(victim, 2)
        assert held == 10
        assert watch.evicted(victim, wanted_by, resident_s=held + 0.1, load_s=2), "it left as soon as it might"


async def test_what_a_load_really_took_is_what_is_charged(world):
    here = await world({"a": {}, "b": {}}, need=40, memory={"budget_bytes": {"cpu": 100}})
    here.executor.measured = 70
    await here.ask("a")
    await here.ask("b")
    assert here.state("a") == "unloaded", "its estimate would have left room, its measure does not"


@pytest.mark.parametrize("seed", range(3))
async def test_on_a_random_walk_no_rule_is_broken_and_no_request_is_lost(world, seed):
    walk = random.Random(seed)
    models = {name: {"pin": name == "p", "keep_alive_s": 20.0 if name == "c" else None} for name in ("a", "b", "c", "p")}
    need = {"a": 30, "b": 50, "c": 20, "p": 25}
    here = await world(models, need=need, memory={"budget_bytes": {"cpu": 100}}, limits={"load_wait_s": 1e6, "retry_failed_s": 0})
    here.executor.answers = False
    verbs = ["ask", "ask", "twice", "begin", "finish", "finish", "fail", "turn", "gate", "load", "unload", "pin", "die", "leave"]
    asked, loads, deaths, pinned = [], [], 0, {"p"}
    for step in range(2000):
        leaving = {name for name in "abcp" if here.state(name) == "draining"}
        match walk.choice(verbs):
            case "ask":
                asked.append(here.ask(walk.choice("abcp"), str(step)))
            case "twice":  # two requests at once, for a model that may be cold
                model = walk.choice("abcp")
                asked += [here.ask(model, "one"), here.ask(model, "other")]
            case "fail":
                here.executor.failures["cpu"] = [ConfigurationError("torn")] if walk.random() < 0.3 else []
            case "load":
                loads.append(asyncio.ensure_future(here.host.load(here.anyone, walk.choice("abcp"))))
            case "pin":  # of one more model at a time, or there might never be room
                pinned = {"p", walk.choice("pc")}
                here.deployment("c").is_pinned = "c" in pinned
            case "begin" | "finish" as verb:
                held = [(replica, call) for replica in here.executor.running for call in replica.open]
                if held:
                    replica, call = walk.choice(held)
                    getattr(replica, verb)(call)
            case "turn":
                here.clock.turn(walk.choice([0.1, 3, 30]))
            case "gate":
                here.executor.gate.clear() if walk.random() < 0.5 else here.executor.gate.set()
            case "unload":
                here.deployment(walk.choice("abc")).unload("the walk")
            case "die" if walk.random() < 0.2 and here.executor.running:
                walk.choice(here.executor.running).die()
                deaths += 1
            case "leave" if asked:
                walk.choice(asked).cancel()
        for _ in range(walk.randrange(12)):
            await asyncio.sleep(0)
        running = [replica.spec.card.name for replica in here.executor.running + here.executor.loading]
        assert sum(need[name] for name in running) <= 100, running
        assert len(running) == len(set(running)), "one worker for each model"
        assert here.executor.cut_off == [], "nobody is stopped while it has calls"
        for name in pinned - leaving:
            assert not here.deployment(name).reason.startswith("to make room") or here.state(name) != "draining", "it is pinned"
    here.executor.gate.set()
    here.executor.failures.clear()
    for _ in range(2000):
        for replica in list(here.executor.running):
            for call in list(replica.open):
                replica.finish(call)
        await asyncio.sleep(0)
        here.clock.turn(0.5)
        if all(answer.done() for answer in asked):
            break
    outcomes = [answer.exception() if not answer.cancelled() else None for answer in asked]
    lost = [answer for answer in asked if not answer.done()]
    assert not lost
    failed = {type(error).__name__ for error in outcomes if error}
    assert failed <= {"ModelFailed", "Unavailable"}, "only a death or a failed load fails a request"
    assert deaths or "ModelFailed" not in failed
    assert sum(error is None for error in outcomes) > len(outcomes) / 2
    await asyncio.gather(*loads, return_exceptions=True)
    assert here.ledger.of("queue")[-1][1:] == (0, 0)


async def test_a_load_whose_callers_have_waited_long_enough_gives_up_its_place(world):
    here = await world({"a": {}, "b": {}}, need=60, memory={"budget_bytes": {"cpu": 100}}, limits={"load_wait_s": 60})
    here.executor.answers = False
    here.ask("a")
    await here.settle()
    waiting = here.ask("b")
    await here.settle()
    here.clock.turn(6)  # longer than the keeper's patience: a makes way
    await here.settle()
    here.clock.turn(55)
    with pytest.raises(Unavailable):
        await waiting
    await here.settle()
    assert here.state("b") == "unloaded", "nobody wants it any more"
    later = here.ask("a", "later")
    await here.settle()
    assert len(here.replica("a").seen) == 2, "a need not make way any longer"
    here.executor.answers = True
    for call in here.replica("a").seen:
        here.replica("a").finish(call.id)
    await later
