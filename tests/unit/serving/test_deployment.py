"""What a user notices of a model's life: loading, failing, falling back, dying, unloading."""

from __future__ import annotations

import asyncio

import pytest

from modelport.contract import ConfigurationError, Conflict, ModelFailed, Unavailable


async def test_two_cold_requests_for_one_model_cause_one_load(world):
    here = await world()
    assert here.state() == "declared"
    first, second = here.ask(text="one"), here.ask(text="two")
    assert [(await first).result.text, (await second).result.text] == ["one", "two"]
    assert here.executor.loads == 1
    assert here.state() == "ready"


async def test_a_model_is_loading_then_busy_then_ready(world):
    here = await world()
    here.executor.gate.clear()
    here.executor.answers = False
    answer = here.ask()
    await here.settle()
    assert here.state() == "loading"
    here.executor.gate.set()
    await here.settle()
    assert here.state() == "busy"
    replica = here.replica()
    replica.finish(replica.seen[0].id)
    await answer
    assert here.state() == "ready"


async def test_a_cold_request_that_waits_too_long_is_told_of_the_load_and_the_load_goes_on(world):
    here = await world(limits={"load_wait_s": 60})
    here.executor.gate.clear()
    answer = here.ask()
    await here.settle()
    here.clock.turn(61)
    with pytest.raises(Unavailable, match="reading weights, 50% done") as caught:
        await answer
    assert caught.value.retry_after_s == 60.0  # half of it took a minute
    here.executor.gate.set()
    await here.settle()
    assert here.state() == "ready"


async def test_a_failed_load_says_why_and_is_not_retried_before_its_time(world):
    here = await world(limits={"retry_failed_s": 30})
    here.executor.failures["cpu"] = [ConfigurationError("The weights are torn.")]
    with pytest.raises(Unavailable, match=r"The weights are torn\."):
        await here.ask()
    assert here.state() == "failed"
    with pytest.raises(Unavailable, match=r"The weights are torn\.") as caught:
        await here.ask()
    assert caught.value.retry_after_s == 30.0
    assert len(here.executor.replicas) == 1, "it was not tried again"
    assert here.host.model(here.anyone, "a").error == "The weights are torn."
    here.clock.turn(31)
    assert (await here.ask()).result.text == "hi"


async def test_an_operator_may_try_a_failed_model_at_once(world):
    here = await world()
    here.executor.failures["cpu"] = [ConfigurationError("torn")]
    with pytest.raises(Unavailable):
        await here.host.load(here.anyone, "a")
    assert (await here.host.load(here.anyone, "a")).state == "ready"


async def test_a_failing_load_falls_back_to_the_next_place_and_the_record_says_so(world):
    here = await world(backends={"fast": 10, "slow": 100})
    here.executor.failures["fast"] = [ConfigurationError("No kernel for it.")]
    assert (await here.ask()).result.text == "hi"
    placement = here.host.placement(here.anyone, "a")
    assert placement["backend"] == "slow"
    assert "No kernel for it." in placement["decision"]
    assert [(attempt["backend"], attempt["error"]) for attempt in placement["attempts"]] == [
        ("fast", "No kernel for it."),
        ("slow", ""),
    ]
    assert placement["facts"] == {"dtype": "float32"}


async def test_a_strict_model_never_falls_back(world):
    here = await world({"a": {"strict": True}}, backends={"fast": 10, "slow": 100})
    here.executor.failures["fast"] = [ConfigurationError("No kernel for it.")]
    with pytest.raises(Unavailable, match="because the model is strict"):
        await here.ask()
    assert [replica.spec.backend for replica in here.executor.replicas] == ["fast"]


async def test_when_every_place_fails_each_reason_is_told(world):
    here = await world(backends={"fast": 10, "slow": 100})
    here.executor.failures |= {"fast": [ConfigurationError("No kernel.")], "slow": [ConfigurationError("No memory.")]}
    with pytest.raises(Unavailable, match=r"No kernel\..*slow:0: No memory\."):
        await here.ask()


async def test_a_worker_that_dies_fails_what_it_had_begun_and_what_it_had_not_is_served_by_a_new_one(world):
    here = await world()
    here.executor.answers = False
    begun, queued = here.ask(text="begun"), here.ask(text="queued")
    await here.settle()
    replica = here.replica()
    replica.begin(replica.seen[0].id)
    here.executor.answers = True
    replica.die()
    with pytest.raises(ModelFailed, match="SIGKILL"):
        await begun
    assert (await queued).result.text == "queued"
    assert here.executor.loads == 2
    assert here.ledger.of("worker_died") == [("a", "exit")]


async def test_a_request_aboard_two_deaths_is_refused_as_poison(world):
    here = await world()
    here.executor.answers = False
    answer = here.ask()
    for _ in range(2):
        await here.settle()
        here.replica().die()
    with pytest.raises(ModelFailed, match="2 workers died while they held this request"):
        await answer
    assert here.executor.loads == 2


async def test_after_a_death_in_idleness_the_next_request_gets_a_new_worker(world):
    here = await world()
    await here.ask()
    here.replica().die()
    assert here.state() == "unloaded"
    assert (await here.ask()).result.text == "hi"


async def test_a_place_where_workers_keep_dying_goes_last(world):
    here = await world(backends={"fast": 10, "slow": 100})
    for _ in range(3):
        await here.ask()
        here.replica().die()
    await here.ask()
    assert here.replica().spec.backend == "slow"
    assert "died 3 times" in str(here.host.placement(here.anyone, "a")["candidates"])


async def test_replicas_share_the_requests(world):
    here = await world({"a": {"replicas": 2}})
    here.executor.answers = False
    await here.host.load(here.anyone, "a")
    await here.settle()
    answers = [here.ask() for _ in range(4)]
    await here.settle()
    assert [len(replica.seen) for replica in here.executor.running] == [2, 2]
    first, second = here.executor.running
    first.die()
    assert len(second.open) == 4, "the living one took over"
    for number in list(second.open):
        second.finish(number)
    await asyncio.gather(*answers)


async def test_unloading_lets_requests_end_and_gives_the_memory_back(world):
    here = await world(need=500)
    here.executor.measured = 700
    here.executor.answers = False
    answer = here.ask()
    await here.settle()
    assert here.host.hardware(here.anyone)[0]["devices"][0]["models_bytes"] == 700
    unloading = asyncio.ensure_future(here.host.unload(here.anyone, "a"))
    await here.settle()
    assert here.state() == "draining"
    assert not unloading.done()
    replica = here.replica()
    replica.finish(replica.seen[0].id)
    assert (await answer).result.text == "hi"
    assert (await unloading).state == "unloaded"
    assert here.host.hardware(here.anyone)[0]["devices"][0]["models_bytes"] == 0


async def test_a_request_that_comes_while_a_model_drains_is_served_by_the_next_load(world):
    here = await world()
    here.executor.answers = False
    first = here.ask(text="first")
    await here.settle()
    unloading = asyncio.ensure_future(here.host.unload(here.anyone, "a"))
    await here.settle()
    second = here.ask(text="second")
    await here.settle()
    old = here.replica()
    here.executor.answers = True
    old.finish(old.seen[0].id)
    assert [(await first).result.text, (await second).result.text] == ["first", "second"]
    await unloading
    assert here.executor.loads == 2


async def test_a_pinned_model_is_not_unloaded(world):
    here = await world({"a": {"pin": True, "keep_alive_s": 10}})
    await here.ask()
    with pytest.raises(Conflict, match=r"models\.a\.pin"):
        await here.host.unload(here.anyone, "a")
    here.clock.turn(3600)
    await here.settle()
    assert here.state() == "ready"


async def test_an_idle_model_is_unloaded_after_its_keep_alive(world):
    here = await world({"a": {"keep_alive_s": 10}, "b": {}})
    await asyncio.gather(here.ask("a"), here.ask("b"))
    here.clock.turn(9)
    await here.ask("a")
    here.clock.turn(9)
    await here.settle()
    assert here.state("a") == "ready", "a request in between keeps it"
    here.clock.turn(2)
    await here.settle()
    assert (here.state("a"), here.state("b")) == ("unloaded", "ready")


async def test_tasks_with_one_program_share_a_worker_and_tasks_with_two_do_not(world):
    here = await world({"a": {}, "b": {"options": {"two": True}}})
    await asyncio.gather(here.ask("a"), here.ask("a", task="count"))
    assert here.executor.loads == 1
    await asyncio.gather(here.ask("b"), here.ask("b", task="count"))
    assert here.executor.loads == 3
    assert len(here.host.placement(here.anyone, "b")["others"]) == 1


async def test_a_skill_without_a_program_needs_no_backend(world):
    here = await world({"a": {"source": "skill:plain"}})
    assert (await here.ask()).result.text == "hi"
    assert here.replica().spec.backend == ""
    assert "needs no backend" in here.host.placement(here.anyone, "a")["decision"]


async def test_plugins_are_told_of_states_and_one_that_raises_harms_nobody(world):
    from modelport import hookimpl

    told = []

    class Bad:
        @hookimpl
        def model_state_changed(self, model, state, reason):
            raise RuntimeError("bad plugin")

    class Good:
        @hookimpl
        def model_state_changed(self, model, state):
            told.append((model, state))

    def prepare(registry):
        registry.manager.register(Good())
        registry.manager.register(Bad())

    here = await world(prepare=prepare)
    await here.ask()
    await here.host.unload(here.anyone, "a")
    assert told == [("a", "loading"), ("a", "ready"), ("a", "draining"), ("a", "unloaded")]


async def test_preloaded_models_make_the_server_ready(world):
    here = await world({"a": {"preload": True}, "b": {}}, started=False)
    here.executor.gate.clear()
    await here.host.start()
    await here.settle()
    assert here.host.readiness() == "loading"
    here.executor.gate.set()
    await here.settle()
    assert here.host.readiness() == "ready"
    assert here.host.health() == {"status": "ready", "models": {"a": "ready", "b": "declared"}}
