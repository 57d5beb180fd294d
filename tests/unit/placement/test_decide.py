from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelport.contract import (
    ArraySpec,
    Device,
    Forward,
    Generate,
    Limits,
    ModelCard,
    Normalize,
    Output,
    Pool,
    Probe,
    Program,
    Verdict,
)
from modelport.core.config.settings import MemorySettings, ModelSettings
from modelport.core.placement.decide import budgets, decide, readable_bytes
from modelport.core.placement.measured import Measured
from modelport.core.placement.record import core_reductions, record_of

PROGRAM = Program({"main": Generate()})
CARD = ModelCard(name="m")


class Backend:
    imports_torch = False
    preload = ()

    def __init__(self, name: str, rank: int, verdict: Verdict | Exception) -> None:
        self.name, self.rank, self._verdict = name, rank, verdict

    def verdict(self, program: Program, card: ModelCard, devices: Any, dtype: str = "auto") -> Verdict:
        if isinstance(self._verdict, Exception):
            raise self._verdict
        return self._verdict

    def environment(self, devices: Any, threads: int) -> dict[str, str]:
        return {}


def yes(**fields: Any) -> Verdict:
    return Verdict(**{"answer": "yes", "reason": "it can", **fields})


def no(reason: str) -> Verdict:
    return Verdict(answer="no", reason=reason)


def device(backend: str, index: int = 0) -> Device:
    return Device(backend=backend, index=index, name="a device", memory_total_bytes=1000, memory_free_bytes=1000)


def choose(*backends: Backend, counts: dict[str, int] | None = None, model: dict[str, Any] | None = None, **more: Any):
    probes = {
        b.name: Probe(devices=tuple(device(b.name, i) for i in range((counts or {}).get(b.name, 1))), reason="no driver")
        for b in backends
    }
    settings = ModelSettings(source="x", **(model or {}))
    table = {backend.name: backend for backend in backends}
    return decide(name="m", model=settings, card=CARD, program=PROGRAM, backends=table, probes=probes, **more)


def took(**seconds: float) -> dict[str, Measured]:
    return {f"{backend}:0": Measured(latency_s=latency) for backend, latency in seconds.items()}


def order(placement: Any) -> list[str]:
    return [candidate.devices[0].id for candidate in placement.order]


def reasons(placement: Any) -> dict[str, str]:
    return {w.candidate.devices[0].id if w.candidate.devices else w.candidate.backend: w.reason for w in placement.weighed}


GPU, CPU = Backend("cuda", 10, yes()), Backend("cpu", 100, yes())


def test_the_best_rank_wins_when_nothing_else_decides():
    placement = choose(CPU, GPU, counts={"cuda": 2})
    assert order(placement) == ["cuda:0", "cuda:1", "cpu:0"]
    assert placement.sentence == "m runs on cuda:0: it has the best rank (10) of the 3 places that can"


def test_every_candidate_is_kept_with_its_reason():
    placement = choose(
        CPU, Backend("npu", 40, no("It has no int8 weights; quantise it.")), Backend("tpu", 5, yes()), counts={"tpu": 0}
    )
    assert order(placement) == ["cpu:0"]
    assert reasons(placement) == {"cpu:0": "it can", "npu:0": "It has no int8 weights; quantise it.", "tpu": "no driver"}


def test_what_is_asked_for_is_used_and_nothing_else():
    assert order(choose(CPU, GPU, model={"backend": "cpu"})) == ["cpu:0"]
    assert order(choose(CPU, GPU, counts={"cuda": 2}, model={"backend": "cuda:1"})) == ["cuda:1"]
    assert order(choose(CPU, GPU, hardware="cpu", model={"backend": "cuda"})) == ["cpu:0"], "the request goes first"
    assert reasons(choose(CPU, GPU, model={"backend": "cpu"}))["cuda:0"] == "'cpu' was asked for, and this is another"


def test_the_configured_order_goes_before_rank_and_leaves_the_rest_out():
    third = Backend("npu", 1, yes())
    assert order(choose(CPU, GPU, third, model={"backends": ["cpu", "cuda"]})) == ["cpu:0", "cuda:0"]


def test_measured_latency_reorders_only_what_was_measured():
    third = Backend("npu", 50, yes())
    assert order(choose(CPU, GPU, third, measured=took(cpu=0.1, cuda=0.2))) == ["cpu:0", "npu:0", "cuda:0"]
    assert order(choose(CPU, GPU, third, measured=took(cpu=0.1))) == ["cuda:0", "npu:0", "cpu:0"]
    assert order(choose(CPU, GPU, measured=took(cpu=0.1, cuda=0.2), model={"backends": ["cuda", "cpu"]})) == [
        "cuda:0",
        "cpu:0",
    ]


def test_a_place_that_lacks_a_required_parameter_is_out():
    able = Backend("cpu", 100, yes(params=frozenset({"logit_bias", "seed"})))
    placement = choose(able, GPU, model={"require": ["logit_bias"]})
    assert order(placement) == ["cpu:0"]
    assert reasons(placement)["cuda:0"] == "does not honour what the configuration requires: logit_bias"


def test_a_place_that_is_too_small_is_out_with_the_numbers():
    placement = choose(Backend("cuda", 10, yes(memory_bytes=3_000_000_000)), CPU, budgets={"cuda:0": 2_000_000_000})
    assert order(placement) == ["cpu:0"]
    assert "needs 3.0 GB, and cuda:0 may hold 2.0 GB" in reasons(placement)["cuda:0"]


def test_a_verdict_that_raises_is_a_no_and_hides_nobody():
    placement = choose(Backend("cuda", 10, KeyError("head")), CPU)
    assert order(placement) == ["cpu:0"]
    assert "KeyError" in reasons(placement)["cuda:0"]


def test_a_place_that_keeps_failing_goes_last_unless_the_model_is_strict():
    assert order(choose(CPU, GPU, failing={"cuda:0": "it died"})) == ["cpu:0", "cuda:0"]
    assert order(choose(CPU, GPU, failing={"cuda:0": "it died"}, model={"strict": True})) == ["cuda:0", "cpu:0"]


def test_a_plugin_may_reorder_and_leave_out():
    placement = choose(CPU, GPU, choose=lambda model, candidates: [1])
    assert order(placement) == ["cpu:0"]
    assert "choose_placement" in placement.sentence
    assert reasons(placement)["cuda:0"] == "a plugin's choose_placement left it out"
    assert order(choose(CPU, GPU, choose=lambda model, candidates: None)) == ["cuda:0", "cpu:0"]


def test_a_model_that_can_run_nowhere_says_why_of_every_place():
    placement = choose(Backend("cuda", 10, no("Too new.")), Backend("cpu", 100, no("Too large.")))
    assert placement.order == ()
    assert placement.sentence == "m can run nowhere. cuda:0: Too new; cpu:0: Too large"


def test_more_memory_than_was_estimated_is_believed_and_less_is_not():
    backend = Backend("cpu", 100, yes(memory_bytes=50))

    def need(known: int) -> int:
        measured = {"cpu:0": Measured(memory_bytes=known)}
        return choose(backend, measured=measured, budgets={"cpu:0": 100}).order[0].verdict.memory_bytes

    assert [need(80), need(20), need(200)] == [80, 50, 100]


def test_one_of_the_interchangeable_places_may_be_picked_to_be_first():
    asked = []

    def pick(places):
        asked.append(list(places))
        return "cpu:0"

    assert order(choose(CPU, GPU, counts={"cuda": 2}, pick=pick)) == ["cpu:0", "cuda:0", "cuda:1"]
    assert order(choose(CPU, GPU, model={"backends": ["cuda", "cpu"]}, pick=pick)) == ["cuda:0", "cpu:0"]
    assert asked == [["cuda:0", "cuda:1", "cpu:0"]], "what the configuration ranks is not interchangeable"


@given(
    st.lists(st.tuples(st.integers(0, 3), st.booleans(), st.none() | st.floats(0.001, 1)), min_size=1, max_size=5),
    st.lists(st.sampled_from(["b0", "b1", "b2"]), unique=True),
)
def test_a_decision_is_a_permutation_of_what_can(table, listed):
    backends = [Backend(f"b{i}", rank, yes() if can else no("no")) for i, (rank, can, _) in enumerate(table)]
    measured = took(**{f"b{i}": latency for i, (_, _, latency) in enumerate(table) if latency is not None})
    placement = choose(*backends, model={"backends": listed}, measured=measured)
    can = {f"b{i}:0" for i, (_, can, _) in enumerate(table) if can and (not listed or f"b{i}" in listed)}
    assert sorted(order(placement)) == sorted(can)
    assert len(placement.weighed) == len(backends)
    assert [w.place for w in placement.weighed if w.place is not None] == list(range(len(can)))


def test_budgets_are_the_devices_the_backends_or_a_part_of_what_was_free():
    memory = MemorySettings(budget_bytes={"cuda:1": 5, "cpu": 7}, fraction=0.5)
    assert budgets(memory, [device("cuda"), device("cuda", 1), device("cpu")]) == {"cuda:0": 500, "cuda:1": 5, "cpu:0": 7}


def test_the_record_is_plain_data_with_every_candidate():
    record = record_of("m", "chat", ["text-generation"], PROGRAM, choose(CPU, Backend("npu", 1, no("nope"))))
    plain = msgspec.json.decode(msgspec.json.encode(record))
    assert [(c["backend"], c["place"], c["reason"]) for c in plain["candidates"]] == [("cpu", 1, "it can"), ("npu", None, "nope")]
    assert plain["program"] == PROGRAM.digest


def test_reductions_that_the_backend_leaves_are_named():
    chain = (Pool("mean"), Normalize())
    program = Program(
        {"main": Forward(head="feature-extraction", inputs=(ArraySpec("input_ids"),), outputs=(Output("e", chain=chain),))}
    )
    assert core_reductions(program, Limits(reductions=frozenset({"pool"}))) == ["normalize"]
    assert core_reductions(None, None) == []


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (3_000_000_000, "3.0 GB"), (5 * 10**15, "5000.0 TB")]
)
def test_bytes_are_readable(count, text):
    assert readable_bytes(count) == text
