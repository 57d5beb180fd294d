"""What a caller notices of one request: who may, what is refused, streams, deadlines, leaving."""

from __future__ import annotations

import asyncio
import gc
import threading
from unittest.mock import Mock

import msgspec
import pytest

from modelport.contract import (
    Cancelled,
    DeadlineExceeded,
    Forbidden,
    InvalidRequest,
    ModelFailed,
    NotFound,
    Options,
    Overloaded,
    Unauthenticated,
    Unavailable,
    WrongTask,
)
from modelport.core.catalog.families import Families
from modelport.core.serving.slot import Slot


class Client:
    """A connection that the test closes; `scope` is what the middleware would give."""

    def __init__(self) -> None:
        self._left = asyncio.Event()
        self.watched = asyncio.Event()
        self.scope = {"modelport.receive": self._receive, "modelport.request_id": "req-7"}

    def leave(self) -> None:
        self._left.set()

    async def _receive(self):
        self.watched.set()
        await self._left.wait()
        return {"type": "http.disconnect"}


async def test_a_reply_has_result_usage_timings_and_the_models_own_name(world):
    here = await world({"a": {"aliases": ["other"]}})
    reply = await here.ask("other")
    assert (reply.result.text, reply.model, reply.usage.prompt_tokens, reply.timings.run_s) == ("hi", "a", 3, 0.25)


async def test_an_unknown_model_is_not_found_with_the_nearest_name(world):
    here = await world({"llama": {}})
    with pytest.raises(NotFound, match="llama"):
        await here.ask("lama")


async def test_families_are_listed_where_no_model_is_configured(world):
    def serve_gpt(registry):
        registry.skills["echo"].heads = {"causal-lm": ("echo",)}
        registry.skills["echo"].default_checkpoints = {"gpt2": "org/gpt2"}

    families = Families({"gpt2": ("causal-lm",), "other": ("causal-lm",)}, "9.9")
    for models, allowed, listed in (({}, True, ["hf_gpt2"]), ({}, False, []), ({"a": {}}, True, [])):
        here = await world(models, allow_families=allowed, prepare=serve_gpt, started=False)
        here.catalog.families = here.catalog.names.families = families
        found = [info for info in here.host.models(here.anyone) if info.id.startswith("hf_")]
        assert [(info.id, info.state, info.source, info.tasks) for info in found] == [
            (name, "family", "org/gpt2", ("echo",)) for name in listed
        ]
        assert [info.id for info in here.host.models(here.caller(models=frozenset({"a"})))] == list(models)


async def test_what_cannot_be_sent_harms_nobody_else(world, monkeypatch):
    here = await world({"a": {}})
    await here.ask("a")
    for error, kind, words in ((RecursionError(), InvalidRequest, "nested too deeply"), (ValueError(), ModelFailed, "log")):
        with monkeypatch.context() as patch:
            patch.setattr(Slot, "send", Mock(side_effect=error))
            with pytest.raises(kind, match=words):
                await here.ask("a")
    assert (await here.ask("a")).result.text == "hi"


async def test_a_wrong_task_names_those_that_the_model_does(world):
    here = await world({"a": {"source": "skill:plain"}})
    with pytest.raises(WrongTask, match=r"does not do 'count'. It does: echo"):
        await here.ask(task="count")
    with pytest.raises(WrongTask, match=r"No skill here does 'paint'"):
        await here.ask(task="paint")


async def test_a_request_of_another_type_is_refused(world):
    class Stranger(msgspec.Struct):
        text: str

    here = await world()
    with pytest.raises(InvalidRequest, match="takes a EchoRequest, and was given a Stranger"):
        await here.host.run("echo", "a", Stranger("hi"), here.anyone)


async def test_only_a_principal_of_the_core_is_believed(world):
    class Forged(msgspec.Struct):
        name: str = "root"
        scopes: frozenset[str] = frozenset({"infer", "admin"})
        models: None = None

    here = await world()
    for principal in (Forged(), None):
        with pytest.raises(Unauthenticated):
            await here.ask(principal=principal)
        with pytest.raises(Unauthenticated):
            here.host.models(principal)
    with pytest.raises(Unauthenticated):
        here.host.principal({"modelport.principal": Forged()})


async def test_scopes_are_checked(world):
    here = await world()
    infer, admin = here.caller(), here.caller(scopes=frozenset({"admin"}))
    for verb in (here.host.load, here.host.unload):
        with pytest.raises(Forbidden, match="'admin'"):
            await verb(infer, "a")
    with pytest.raises(Forbidden, match="'infer'"):
        await here.ask(principal=admin)


async def test_an_allow_list_hides_and_refuses_other_models(world):
    here = await world({"a": {}, "secret": {}})
    caller = here.caller(models=frozenset({"a"}), scopes=frozenset({"infer", "admin"}))
    assert [info.id for info in here.host.models(caller)] == ["a"]
    assert (await here.ask("a", principal=caller)).result.text == "hi"
    with pytest.raises(Forbidden, match="may not use the model 'secret'"):
        await here.ask("secret", principal=caller)
    for look in (here.host.model, here.host.placement):
        with pytest.raises(Forbidden):
            look(caller, "secret")
    with pytest.raises(Forbidden):
        await here.host.default_task(caller, "secret")
    with pytest.raises(Forbidden):
        await here.host.load(caller, "secret")
    with pytest.raises(NotFound) as caught:
        await here.ask("secre", principal=caller)
    assert "secret" not in caught.value.message


async def test_an_authorizer_that_raises_denies(world):
    class Broken:
        name = "broken"

        def authorize(self, principal, action, model):
            if action == "infer":
                raise KeyError("a defect")

    here = await world(prepare=lambda registry: registry.authorizers.append(Broken()))
    await here.host.load(here.anyone, "a")
    with pytest.raises(Forbidden, match="authorizer 'broken' failed"):
        await here.ask()


async def test_a_full_queue_answers_at_once_and_says_when_to_come_back(world):
    here = await world({"a": {"queue_items": 2}})
    here.executor.answers = False
    await here.host.load(here.anyone, "a")
    answers = [here.ask() for _ in range(2)]
    await here.settle()
    with pytest.raises(Overloaded, match="2 requests wait already"):
        await here.ask()
    replica = here.replica()
    for call in list(replica.seen):
        here.clock.turn(3)
        replica.begin(call.id)
    answers += [here.ask() for _ in range(2)]
    await here.settle()
    with pytest.raises(Overloaded) as caught:
        await here.ask()
    assert caught.value.retry_after_s == pytest.approx(6.0, rel=0.05)  # two wait, and one is begun every three seconds
    assert here.ledger.of("request_rejected") == [("a", "overloaded"), ("a", "overloaded")]
    for call in list(replica.seen):
        replica.finish(call.id)
    await asyncio.gather(*answers)
    assert here.ledger.of("queue")[-1] == ("a", 0, 0)


async def test_the_queue_is_bounded_in_bytes_too(world):
    here = await world(limits={"queue_bytes": 1000})
    here.executor.answers = False
    await here.host.load(here.anyone, "a")
    first = here.ask(text="x" * 900)
    await here.settle()
    with pytest.raises(Overloaded, match="bytes"):
        await here.ask(text="x" * 900)
    here.replica().finish(here.replica().seen[0].id)
    await first


async def test_cold_requests_are_bounded_like_warm_ones(world):
    here = await world({"a": {"queue_items": 1}})
    here.executor.gate.clear()
    first = here.ask()
    await here.settle()
    with pytest.raises(Overloaded):
        await here.ask()
    here.executor.gate.set()
    await first


async def test_requests_of_higher_priority_are_sent_first(world):
    here = await world()
    here.executor.gate.clear()
    answers = [here.ask(text="later"), here.ask(text="sooner", options=Options(priority=5))]
    await here.settle()
    here.executor.gate.set()
    await asyncio.gather(*answers)
    assert [call.request.text for call in here.replica().seen] == ["sooner", "later"]


async def test_a_passed_deadline_ends_the_request_and_frees_its_place(world):
    here = await world()
    here.executor.answers = False
    answer = here.ask(options=Options(deadline_s=2))
    await here.settle()
    replica = here.replica()
    assert replica.seen[0].deadline_s == 2
    here.clock.turn(3)
    with pytest.raises(DeadlineExceeded):
        await answer
    await here.settle()
    assert replica.cancelled == [replica.seen[0].id]
    assert here.state() == "ready"
    assert here.ledger.of("request_finished")[-1][3] == "deadline"


async def test_a_deadline_counts_the_wait_for_a_load(world):
    here = await world(limits={"request_s": 10})
    here.executor.gate.clear()
    answer = here.ask()
    await here.settle()
    here.clock.turn(4)
    here.executor.gate.set()
    await answer
    assert here.replica().seen[0].deadline_s == 6


async def test_a_client_that_leaves_cancels_its_plain_request(world):
    here = await world()
    here.executor.answers = False
    client = Client()
    answer = here.ask(scope=client.scope)
    await client.watched.wait()
    client.leave()
    with pytest.raises(Cancelled):
        await answer
    await here.settle()
    assert here.replica().open == {}
    assert here.ledger.of("request_finished")[-1][:4] == ("a", "echo", "cpu", "cancelled")


async def test_a_client_that_leaves_cancels_its_stream(world):
    here = await world()
    here.executor.answers = False
    client = Client()
    opening = here.ask_stream(scope=client.scope)
    await client.watched.wait()
    replica = here.replica()
    replica.delta(replica.seen[0].id, "one")
    stream = await opening
    assert (await anext(stream)).text == "one"
    client.leave()
    with pytest.raises(Cancelled):
        await anext(stream)
    await here.settle()
    assert replica.open == {}


async def test_a_client_that_leaves_while_the_model_loads_takes_its_request_along(world):
    here = await world()
    here.executor.gate.clear()
    client = Client()
    answer = here.ask(scope=client.scope)
    await client.watched.wait()
    client.leave()
    with pytest.raises(Cancelled):
        await answer
    here.executor.gate.set()
    await here.settle()
    assert here.replica().seen == []


async def test_a_cancelled_item_holds_its_slot_until_the_device_lets_go(world):
    here = await world()
    here.executor.answers, here.executor.lingers = False, True
    answer = here.ask()
    await here.settle()
    replica = here.replica()
    replica.begin(replica.seen[0].id)
    answer.cancel()
    await here.settle()
    assert here.state() == "busy"
    assert here.ledger.of("queue")[-1] == ("a", 0, 1)
    replica.let_go(replica.seen[0].id)
    assert here.state() == "ready"
    assert here.ledger.of("queue")[-1] == ("a", 0, 0)


async def test_a_stream_gives_deltas_then_usage(world):
    here = await world()
    here.executor.answers = False
    opening = here.ask_stream()
    await here.settle()
    assert not opening.done(), "nothing is there yet"
    replica = here.replica()
    call = replica.seen[0].id
    replica.delta(call, "on")
    replica.delta(call, "e")
    stream = await opening
    replica.finish(call)
    assert [delta.text async for delta in stream] == ["on", "e"]
    assert (stream.model, stream.usage.prompt_tokens, stream.timings.run_s) == ("a", 3, 0.25)


async def test_a_failure_before_the_first_delta_is_raised_by_stream_itself(world):
    here = await world()
    here.executor.answers = False
    opening = here.ask_stream()
    await here.settle()
    here.replica().fail(here.replica().seen[0].id, InvalidRequest("Too odd.", param="text"))
    with pytest.raises(InvalidRequest, match=r"Too odd\."):
        await opening


async def test_a_worker_that_dies_in_mid_stream_ends_it_with_an_error(world):
    here = await world()
    here.executor.answers = False
    opening = here.ask_stream()
    await here.settle()
    here.replica().delta(here.replica().seen[0].id, "one")
    stream = await opening
    here.replica().die()
    assert (await anext(stream)).text == "one"
    with pytest.raises(ModelFailed, match="SIGKILL"):
        await anext(stream)


async def test_a_slow_reader_gets_everything_in_at_most_64_pieces(world):
    here = await world()
    here.executor.answers = False
    opening = here.ask_stream()
    await here.settle()
    replica = here.replica()
    call = replica.seen[0].id
    for number in range(1000):
        replica.delta(call, f"{number} ")
    replica.finish(call)
    pieces = [delta.text async for delta in await opening]
    assert len(pieces) <= 64
    assert "".join(pieces) == "".join(f"{number} " for number in range(1000))


@pytest.mark.parametrize("way", ["closed", "dropped"])
async def test_a_stream_that_is_left_cancels_its_request(world, way):
    here = await world()
    here.executor.answers = False
    opening = here.ask_stream()
    await here.settle()
    replica = here.replica()
    replica.delta(replica.seen[0].id, "one")
    stream = await opening
    if way == "closed":
        await stream.aclose()
    del stream, opening
    gc.collect()
    await here.settle()
    assert replica.cancelled == [replica.seen[0].id]
    assert here.ledger.of("request_finished")[-1][3] == "cancelled"


async def test_a_task_that_does_not_stream_says_so(world):
    here = await world()
    with pytest.raises(InvalidRequest, match="does not stream"):
        await here.host.stream("count", "a", here.echo("hi"), here.anyone)


async def test_hardware_may_be_chosen_only_where_the_configuration_allows_it(world):
    here = await world(backends={"fast": 10, "slow": 100})
    with pytest.raises(InvalidRequest, match="allow_backend_choice"):
        await here.ask(options=Options(hardware="slow"))
    here = await world(backends={"fast": 10, "slow": 100}, allow_backend_choice=True)
    await asyncio.gather(here.ask(), here.ask(options=Options(hardware="slow")), here.ask(options=Options(hardware="fast")))
    assert sorted({replica.spec.backend for replica in here.executor.running}) == ["fast", "slow"]
    assert {replica.spec.backend: list(replica.spec.params_elsewhere) for replica in here.executor.running} == {
        "fast": ["slow"],
        "slow": ["fast"],
    }
    with pytest.raises(InvalidRequest, match="There is: fast, fast:0, slow, slow:0"):
        await here.ask(options=Options(hardware="tpu"))


async def test_a_drain_answers_what_was_accepted_and_refuses_what_comes_after(world):
    here = await world()
    here.executor.answers = False
    answers = [here.ask(text=str(n)) for n in range(3)]
    await here.settle()
    stopping = asyncio.ensure_future(here.host.stop(30))
    await here.settle()
    assert here.host.readiness() == "draining"
    with pytest.raises(Unavailable, match="shutting down"):
        await here.ask()
    assert not stopping.done()
    replica = here.replica()
    for call in list(replica.seen):
        replica.finish(call.id)
    assert [(await answer).result.text for answer in answers] == ["0", "1", "2"]
    await stopping
    assert here.executor.running == []


async def test_a_drain_that_takes_too_long_fails_the_rest_with_a_sentence(world):
    here = await world()
    here.executor.answers = False
    answer = here.ask()
    await here.settle()
    await here.host.stop(0)
    with pytest.raises(Unavailable, match="shutting down"):
        await answer


async def test_a_request_whose_checkpoint_is_read_in_the_drain_is_refused_and_leaves_nothing_running(world, monkeypatch):
    here = await world({"a": {}}, started=False)
    card, read = here.host._catalog.card, asyncio.Event()

    async def slowly(*args):
        await read.wait()
        return await card(*args)

    monkeypatch.setattr(here.host._catalog, "card", slowly)
    asked = here.ask("a")
    await here.settle()
    here.host.drain()
    read.set()
    with pytest.raises(Unavailable, match="shutting down"):
        await asked
    await here.host.stop(0)
    assert here.executor.running == []


async def test_observers_are_told_and_one_that_hangs_only_loses_records(world):
    release, seen = threading.Event(), []
    first = threading.Event()

    class Slow:
        name = "slow"

        def observe(self, record):
            first.set()
            release.wait(10)
            seen.append(record)

    here = await world(prepare=lambda registry: registry.observers.append(Slow()))
    client = Client()
    await here.ask(scope=client.scope)
    first.wait(10)
    for _ in range(1024 + 5):
        await here.ask()
    assert here.ledger.dropped == 5
    release.set()
    await here.host.stop(0)
    assert len(seen) == 1025
    assert (seen[0].request_id, seen[0].principal, seen[0].model, seen[0].status) == ("req-7", "anonymous", "a", "ok")
    assert (seen[0].backend, seen[0].usage.prompt_tokens) == ("cpu", 3)


async def test_a_deadline_counts_the_reading_of_the_checkpoint(world, monkeypatch):
    here = await world({"a": {}}, started=False)
    monkeypatch.setattr(here.host._catalog, "card", lambda *_: asyncio.Event().wait())
    with pytest.raises(DeadlineExceeded):
        async with asyncio.timeout(5):
            await here.ask("a", options=Options(deadline_s=0.05))


async def test_the_default_task_is_told_once_the_checkpoint_has_been_read(world, monkeypatch):
    here = await world({"a": {}}, started=False)
    card, read = here.host._catalog.card, asyncio.Event()

    async def slowly(*args):
        await read.wait()
        return await card(*args)

    monkeypatch.setattr(here.host._catalog, "card", slowly)
    asked = asyncio.ensure_future(here.host.default_task(here.caller(), "a"))
    await here.settle()
    assert not asked.done()
    read.set()
    assert await asked == "echo"


async def test_a_client_that_leaves_while_the_checkpoint_is_read_waits_no_longer(world, monkeypatch):
    here = await world({"a": {}}, started=False)
    monkeypatch.setattr(here.host._catalog, "card", lambda *_: asyncio.Event().wait())
    client = Client()
    asked = here.ask("a", scope=client.scope)
    await client.watched.wait()
    client.leave()
    with pytest.raises(Cancelled):
        async with asyncio.timeout(5):
            await asked
    assert here.host._models["a"]._waiting == 0
