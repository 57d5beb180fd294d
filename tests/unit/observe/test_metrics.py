from __future__ import annotations

import pytest

from modelport.contract import Timings, Usage
from modelport.contract.executor import ReplicaStats
from modelport.core.observe.metrics import Metrics


@pytest.fixture
def metrics():
    return Metrics()


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def test_requests_are_counted_from_start_to_end(metrics):
    metrics.request_started("m", "t")
    assert value(metrics, "modelport_requests_in_flight", model="m", task="t") == 1
    usage, timings = Usage(prompt_tokens=5, completion_tokens=7), Timings(first_delta_s=0.2, run_s=0.4)
    metrics.request_finished("m", "t", "cpu", "ok", 0.5, usage, timings)
    labels = {"model": "m", "task": "t", "backend": "cpu"}
    assert value(metrics, "modelport_requests_in_flight", model="m", task="t") == 0
    assert value(metrics, "modelport_requests_total", **labels, status="ok") == 1
    assert value(metrics, "modelport_prompt_tokens_total", **labels) == 5
    assert value(metrics, "modelport_completion_tokens_total", **labels) == 7
    assert value(metrics, "modelport_time_to_first_token_seconds_sum", **labels) == 0.2


def test_the_mean_batch_can_be_derived(metrics):
    metrics.replica_stats("m", "cpu", ReplicaStats(batches=4, items=40))
    labels = {"model": "m", "backend": "cpu"}
    assert value(metrics, "modelport_batch_items_total", **labels) == 40
    assert value(metrics, "modelport_batches_total", **labels) == 4


def test_counters_survive_a_workers_restart(metrics):
    labels = {"model": "m", "backend": "cpu"}
    metrics.replica_stats("m", "cpu", ReplicaStats(batches=3, items=30))
    metrics.replica_stats("m", "cpu", ReplicaStats(batches=5, items=50), final=True)
    metrics.replica_stats("m", "cpu", ReplicaStats(batches=1, items=10))
    assert value(metrics, "modelport_batch_items_total", **labels) == 60
    metrics.replica_stats("m", "cpu", ReplicaStats(batches=2, items=20))
    metrics.replica_stats("m", "cpu", ReplicaStats(batches=1, items=5))
    assert value(metrics, "modelport_batch_items_total", **labels) == 75


def test_gauges_add_up_replicas_and_forget_the_gone(metrics):
    labels = {"model": "m", "backend": "cpu"}
    metrics.replica_stats("m", "cpu", ReplicaStats(running=2, waiting=1), replica="0")
    metrics.replica_stats("m", "cpu", ReplicaStats(running=3), replica="1")
    assert value(metrics, "modelport_slots_running", **labels) == 5
    metrics.replica_stats("m", "cpu", ReplicaStats(running=3), final=True, replica="1")
    assert value(metrics, "modelport_slots_running", **labels) == 2


def test_a_model_is_in_one_state(metrics):
    metrics.model_state("m", "loading")
    metrics.model_state("m", "ready")
    assert value(metrics, "modelport_model_state", model="m", state="ready") == 1
    assert value(metrics, "modelport_model_state", model="m", state="loading") == 0


def test_every_event_has_its_metric(metrics):
    metrics.request_rejected("m", "overloaded")
    metrics.queue("m", waiting=3, running=2)
    metrics.load_finished("m", "cpu", 1.5, 1000)
    metrics.worker_died("m", "exit")
    metrics.observer_dropped()
    metrics.http_request("GET", "/x", 200, 0.1)
    assert value(metrics, "modelport_requests_rejected_total", model="m", kind="overloaded") == 1
    assert value(metrics, "modelport_queue_waiting", model="m") == 3
    assert value(metrics, "modelport_model_memory_bytes", model="m", backend="cpu") == 1000
    assert value(metrics, "modelport_workers_died_total", model="m", reason="exit") == 1
    assert value(metrics, "modelport_observer_dropped_total") == 1


def test_two_servers_in_one_process_do_not_mix(metrics):
    metrics.request_rejected("m", "overloaded")
    assert value(Metrics(), "modelport_requests_rejected_total", model="m", kind="overloaded") is None


@pytest.mark.parametrize("accept", ["", "application/openmetrics-text; version=1.0.0"])
def test_no_series_tells_when_a_series_was_made(metrics, accept):
    metrics.http_request("GET", "/x", 200, 0.1)
    metrics.observer_dropped()
    assert b"_created" not in metrics.exposition(accept)[0]


@pytest.mark.parametrize("accept", ["", "application/openmetrics-text; version=1.0.0"])
def test_stock_dashboards_find_their_names(metrics, accept):
    metrics.request_started("m", "t")
    metrics.request_finished("m", "t", "cpu", "ok", 0.5, Usage(), Timings(first_delta_s=0.1))
    metrics.replica_stats("m", "cpu", ReplicaStats(running=2))
    text = metrics.exposition(accept)[0].decode()
    assert 'vllm:num_requests_running{backend="cpu",model_name="m"} 2.0' in text
    assert "vllm:e2e_request_latency_seconds_bucket{" in text
    assert "vllm:time_to_first_token_seconds_count{" in text
