"""What a server learns from what it measures, and what `auto` makes of it."""

from __future__ import annotations

import json

import pytest

from modelport.contract.errors import DeadlineExceeded, DeviceFailed, InvalidRequest, ModelFailed, NotFound
from modelport.contract.reply import Options

MODELS = {"slow": {"aliases": ["tortoise"]}, "quick": {}}


def takes(here, **seconds: float) -> None:
    """How long each model takes on the device."""
    here.executor.run_s = seconds


async def test_auto_learns_which_model_is_quick(world):
    here = await world(MODELS, learning={"explore": 0.2})
    takes(here, slow=0.5, quick=0.01)
    served = [(await here.ask("auto")).model for _ in range(60)]
    assert served[-20:].count("quick") >= 15
    (told,) = here.host.recommendations(here.anyone, "echo")
    assert told["model"] == "quick"
    assert told["decisions"] == 60
    assert {arm["model"]: arm["observations"] for arm in told["arms"]} == {name: served.count(name) for name in MODELS}


async def test_auto_leaves_a_model_that_fails(world):
    here = await world(MODELS)
    here.executor.broken["cpu"] = ModelFailed("Its code raised.")
    for _ in range(5):
        with pytest.raises(ModelFailed):
            await here.ask("slow")
    del here.executor.broken["cpu"]
    await here.ask("quick")
    assert here.host.recommendations(here.anyone, "echo")[0]["model"] == "quick"


async def test_ratings_outweigh_speed_and_only_the_caller_may_rate(world):
    here = await world(MODELS)
    takes(here, slow=0.5, quick=0.01)
    for number in range(30):
        for model, score in (("slow", 1.0), ("quick", 0.0)):
            await here.ask(model, options=Options(request_id=f"{model}{number}"))
            here.host.rate(here.anyone, f"{model}{number}", score)
    assert here.host.recommendations(here.anyone, "echo")[0]["model"] == "slow"
    await here.ask("slow", options=Options(request_id="mine"))
    with pytest.raises(NotFound):
        here.host.rate(here.caller(name="somebody else"), "mine", 1.0)
    here.host.rate(here.anyone, "mine", 1.0)
    with pytest.raises(NotFound, match="rated once"):
        here.host.rate(here.anyone, "mine", 1.0)
    with pytest.raises(NotFound, match="x-request-id"):
        here.host.rate(here.anyone, "never seen", 1.0)
    with pytest.raises(InvalidRequest, match="between 0 and 1"):
        here.host.rate(here.anyone, "slow1", 5)


async def test_auto_means_only_models_that_the_caller_may_use_and_that_do_the_task(world):
    here = await world({**MODELS, "plain": {"source": "skill:plain"}})
    only = here.caller(models=frozenset({"slow"}))
    assert {(await here.ask("auto", principal=only)).model for _ in range(5)} == {"slow"}
    assert (await here.ask("auto", task="count")).model in MODELS
    with pytest.raises(NotFound, match="none to choose for 'auto'"):
        await here.ask("auto", principal=here.caller(models=frozenset({"nothing"})))


async def test_what_was_learned_outlives_the_server(world, tmp_path):
    here = await world(MODELS, learning={"explore": 0})
    takes(here, slow=0.5, quick=0.01)
    here.executor.measured = 70
    for _ in range(10):
        await here.ask("slow")
        await here.ask("quick")
    await here.host.stop(0)
    kept = json.loads((tmp_path / "learned.json").read_text())
    assert {known["cpu:0"]["memory_bytes"] for known in kept["measured"].values()} == {70}
    again = await world(MODELS, learning={"explore": 0})
    assert (await again.ask("auto")).model == "quick"
    assert again.host.placement(again.anyone, "quick")["memory_estimate_bytes"] == 70, (
        "what the last load took goes before estimates"
    )


async def test_a_torn_file_costs_only_the_memory_of_it(world, tmp_path):
    (tmp_path / "learned.json").write_text("{torn")
    here = await world(MODELS)
    assert (await here.ask("auto")).result.text == "hi"


async def test_measured_latency_decides_the_next_load_among_equals(world):
    here = await world(backends={"first": 10, "second": 20}, allow_backend_choice=True)
    here.executor.run_s = {"first": 0.5, "second": 0.01}
    for backend in ("first", "second"):
        await here.ask(options=Options(hardware=backend))
    for deployment in here.host._models["a"].deployments.values():
        await deployment.unload("test")
    await here.ask()
    assert here.replica().spec.backend == "second"


async def test_places_are_tried_only_where_the_configuration_says_so(world):
    for settings, loaded in (({}, {"first"}), ({"places": True, "explore": 1.0}, {"first", "second"})):
        here = await world(backends={"first": 10, "second": 20}, learning=settings)
        for _ in range(12):
            await here.ask()
            await here.host.unload(here.caller(scopes=frozenset({"admin", "infer"})), "a")
        assert {replica.spec.backend for replica in here.executor.replicas} == loaded


async def test_a_header_names_the_backend_where_the_configuration_allows_it(world):
    scope = {"headers": [(b"x-modelport-backend", b"second")]}
    for allowed, backend in ((True, "second"), (False, "first")):
        here = await world(backends={"first": 10, "second": 20}, allow_backend_choice=allowed)
        await here.ask(scope=scope)
        assert here.replica().spec.backend == backend


async def test_what_an_emulated_device_takes_teaches_nothing(world):
    here = await world(MODELS, emulated=True)
    await here.ask("slow")
    assert [arm["observations"] for arm in here.host.recommendations(here.anyone, "echo")[0]["arms"]] == [0, 0]


async def test_a_failure_of_the_device_speaks_against_the_model_there(world):
    here = await world({"a": {"strict": True}, "b": {}})
    here.executor.broken["cpu"] = DeviceFailed("The device computed NaN.")
    with pytest.raises(DeviceFailed):
        await here.ask("a")
    told = here.host.recommendations(here.anyone, "echo")[0]
    assert told["model"] == "b"


async def test_a_deadline_of_the_callers_own_speaks_against_nobody(world):
    here = await world(MODELS)
    here.executor.answers = False
    for _ in range(5):
        late = here.ask("slow", options=Options(deadline_s=0.001))
        await here.settle()
        here.clock.turn(1)
        with pytest.raises(DeadlineExceeded):
            await late
    assert here.host.recommendations(here.anyone, "echo")[0]["arms"][0]["reward"] == 0.5


async def test_a_smaller_model_is_not_refused_for_what_the_larger_one_took(world):
    here = await world({"a": {}}, memory={"budget_bytes": {"cpu": 100}})
    here.executor.measured = 200
    await here.ask()
    await here.host.stop(0)
    again = await world({"a": {"max_items": 4}}, memory={"budget_bytes": {"cpu": 100}})
    assert (await again.ask()).result.text == "hi"
