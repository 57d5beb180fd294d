"""Prometheus metrics, named after the events that the server reports.

Labels are bounded: configured model names, task names, backends, statuses and route templates; never a user's text. Each
`Metrics` has a registry of its own, so two servers in one process do not mix.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics import exposition as openmetrics

from modelport.contract.executor import ReplicaStats
from modelport.contract.reply import Timings, Usage
from modelport.core.observe.compatible import CompatibleNames

__all__ = ["Metrics"]

_LATENCY = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
_LOAD = (0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0)
_STATES = ("declared", "loading", "ready", "busy", "draining", "unloaded", "failed")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "WEBSOCKET"})


class _Registry(CollectorRegistry):
    """Without the `_created` series that the library adds to every counter and histogram. It can be told not to, but only for
    the whole process, and a program around an `Engine` may have metrics of its own.

    Args:
        refresh: Called before every collection, for what changes too often to be set at every change.
    """

    def __init__(self, refresh: Callable[[], None]) -> None:
        super().__init__()
        self._refresh = refresh

    def collect(self) -> Iterable[Metric]:
        self._refresh()
        for metric in super().collect():
            metric.samples = [sample for sample in metric.samples if not sample.name.endswith("_created")]
            yield metric


class _Family(dict[Any, Any]):
    """A metric's series by their labels: one value, or a tuple of them. The library's own lookup costs more than the counting,
    and a request makes some twenty."""

    def __init__(self, metric: Any) -> None:
        super().__init__()
        self.metric = metric

    def __missing__(self, labels: str | tuple[str, ...]) -> Any:
        series = self[labels] = self.metric.labels(*((labels,) if isinstance(labels, str) else labels))
        return series


class Metrics:
    """Everything that is counted. Methods are called on the server's event loop and take about a microsecond."""

    def __init__(self) -> None:
        self.registry = _Registry(self._refresh)
        ProcessCollector(registry=self.registry)
        self._replicas: dict[tuple[str, str, str], ReplicaStats] = {}
        self._queues: dict[str, tuple[int, int]] = {}
        self._define_requests()
        self._define_models()
        self._define_server()
        compatible = self._slots_running, self._slots_waiting, self._first_delta, self._latency
        self.registry.register(CompatibleNames(*(family.metric for family in compatible)))

    def _define_requests(self) -> None:
        labels = ("model", "task", "backend")
        self._started = self._counter("requests_started", "Requests that were accepted", ("model", "task"))
        self._finished = self._counter(
            "requests", "Requests that ended, by status (ok, or the error's kind)", (*labels, "status")
        )
        self._rejected = self._counter(
            "requests_rejected", "Requests refused before a model saw them, by kind", ("model", "kind")
        )
        self._in_flight = self._gauge("requests_in_flight", "Requests accepted and not ended", ("model", "task"))
        self._latency = self._histogram("request_seconds", "From a request's acceptance to its end", labels, _LATENCY)
        self._queue_time = self._histogram("request_queue_seconds", "Waiting for admission and a device", labels, _LATENCY)
        self._prepare_time = self._histogram("request_prepare_seconds", "Preparing a request on the CPU", labels, _LATENCY)
        self._run_time = self._histogram("request_run_seconds", "A request's time on the device", labels, _LATENCY)
        self._first_delta = self._histogram("time_to_first_token_seconds", "From acceptance to the first delta", labels, _LATENCY)
        self._prompt = self._counter("prompt_tokens", "Prompt tokens of ended requests", labels)
        self._completion = self._counter("completion_tokens", "Generated tokens of ended requests", labels)
        self._cached = self._counter("cached_tokens", "Prompt tokens that a cache answered", labels)

    def _define_models(self) -> None:
        labels = ("model", "backend")
        self._queue_waiting = self._gauge("queue_waiting", "Requests that wait in the server", ("model",))
        self._queue_running = self._gauge("queue_running", "Requests that a worker has", ("model",))
        self._batches = self._counter("batches", "Batches run; modelport_batch_items_total over it is the mean batch", labels)
        self._batch_items = self._counter("batch_items", "Items in those batches", labels)
        self._batch_tokens = self._counter("batch_tokens", "Tokens in those batches, padding included", labels)
        self._padded_tokens = self._counter("batch_padding_tokens", "Tokens of padding in those batches", labels)
        self._generated = self._counter("generated_tokens", "Tokens that engines generated", labels)
        self._steps = self._counter("engine_steps", "Steps of generation engines", labels)
        self._busy = self._counter("device_busy_seconds", "Time in which the device computed", labels)
        self._slots_running = self._gauge("slots_running", "Items on the device or in the running batch", labels)
        self._slots_waiting = self._gauge("slots_waiting", "Items that wait in workers", labels)
        self._cache_used = self._gauge("cache_used_tokens", "Key/value cache in use", labels)
        self._cache_total = self._gauge("cache_total_tokens", "Key/value cache there is", labels)
        self._resident = self._gauge("worker_resident_bytes", "Resident memory of workers", labels)
        self._state = self._gauge("model_state", "1 for the state that a model is in", ("model", "state"))
        self._load_time = self._histogram("model_load_seconds", "Loads that succeeded", labels, _LOAD)
        self._memory = self._gauge("model_memory_bytes", "Memory that a model's load took, measured", labels)
        self._device_failures = self._counter(
            "device_failures", "Requests that a device failed: out of memory, lost, or NaN", labels
        )
        self._fallbacks = self._counter("fallbacks", "Loads on a place because a better one failed", labels)
        self._deaths = self._counter("workers_died", "Workers that ended without being asked to", ("model", "reason"))

    def _define_server(self) -> None:
        self._http = self._counter("http_requests", "HTTP requests", ("method", "route", "status"))
        self._http_time = self._histogram(
            "http_request_seconds", "HTTP requests, to the last byte", ("method", "route"), _LATENCY
        )
        self._dropped = self._counter("observer_dropped", "Records that observers were too slow for", ())

    def request_started(self, model: str, task: str) -> None:
        """A request was accepted."""
        self._started[model, task].inc()
        self._in_flight[model, task].inc()

    def request_finished(
        self, model: str, task: str, backend: str, status: str, total_s: float, usage: Usage, timings: Timings
    ) -> None:
        """A request that had started ended. `status` is `ok` or the error's kind."""
        self._in_flight[model, task].dec()
        self._finished[model, task, backend, status].inc()
        labels = (model, task, backend)
        self._latency[labels].observe(total_s)
        if status == "ok":
            self._queue_time[labels].observe(timings.queue_s)
            self._prepare_time[labels].observe(timings.prepare_s)
            self._run_time[labels].observe(timings.run_s)
        if timings.first_delta_s:
            self._first_delta[labels].observe(timings.first_delta_s)
        for counter, tokens in (
            (self._prompt, usage.prompt_tokens),
            (self._completion, usage.completion_tokens),
            (self._cached, usage.cached_tokens),
        ):
            if tokens:
                counter[labels].inc(tokens)

    def request_rejected(self, model: str, kind: str) -> None:
        """A request was refused before it started; `kind` is the error's, `model` empty if it names none of ours."""
        self._rejected[model, kind].inc()

    def queue(self, model: str, waiting: int, running: int) -> None:
        """The server's queue of a model changed."""
        self._queues[model] = waiting, running

    def _refresh(self) -> None:
        for model, (waiting, running) in self._queues.items():
            self._queue_waiting[model].set(waiting)
            self._queue_running[model].set(running)

    def replica_stats(self, model: str, backend: str, stats: ReplicaStats, final: bool = False, replica: str = "") -> None:
        """A heartbeat of a replica. Its counters start at 0 with every worker; ours only grow.

        `final` says that no more will come from this worker. `replica` tells several workers of one model apart.
        """
        key = (model, backend, replica)
        last = self._replicas.get(key, ReplicaStats())
        if stats.batches < last.batches or stats.progress < last.progress or stats.items < last.items:
            last = ReplicaStats()
        for counter, now, before in (
            (self._batches, stats.batches, last.batches),
            (self._batch_items, stats.items, last.items),
            (self._batch_tokens, stats.batch_tokens, last.batch_tokens),
            (self._padded_tokens, stats.padded_tokens, last.padded_tokens),
            (self._generated, stats.generated_tokens, last.generated_tokens),
            (self._steps, stats.steps, last.steps),
            (self._busy, stats.device_busy_s, last.device_busy_s),
        ):
            counter[model, backend].inc(max(0, now - before))
        if final:
            self._replicas.pop(key, None)
        else:
            self._replicas[key] = stats
        living = [other for (name, where, _), other in self._replicas.items() if (name, where) == (model, backend)]
        for gauge, field in (
            (self._slots_running, "running"),
            (self._slots_waiting, "waiting"),
            (self._cache_used, "cache_used"),
            (self._cache_total, "cache_total"),
            (self._resident, "resident_bytes"),
        ):
            gauge[model, backend].set(sum(getattr(other, field) for other in living))

    def model_state(self, model: str, state: str) -> None:
        """A model changed its state."""
        for name in _STATES:
            self._state[model, name].set(name == state)

    def load_finished(self, model: str, backend: str, seconds: float, memory_bytes: int) -> None:
        """A model was loaded."""
        self._load_time[model, backend].observe(seconds)
        self._memory[model, backend].set(memory_bytes)

    def worker_died(self, model: str, reason: str) -> None:
        """A worker ended without being asked to; `reason` is a word of a fixed list (`exit`, `stuck`, `memory`, …)."""
        self._deaths[model, reason].inc()

    def device_failed(self, model: str, backend: str) -> None:
        """A device failed a request."""
        self._device_failures[model, backend].inc()

    def fell_back(self, model: str, backend: str) -> None:
        """A model was loaded elsewhere than on its best place."""
        self._fallbacks[model, backend].inc()

    def observer_dropped(self) -> None:
        """The observers' queue was full."""
        self._dropped.metric.inc()

    def http_request(self, method: str, route: str, status: int, seconds: float) -> None:
        """An HTTP request ended. `route` is a template (`/v1/infer/{name}`), or `unmatched`."""
        known = method if method in _METHODS else "OTHER"
        self._http[known, route, str(status)].inc()
        self._http_time[known, route].observe(seconds)

    def exposition(self, accept: str) -> tuple[bytes, str]:
        """All metrics as text, and its content type: OpenMetrics where `accept` asks for it, else Prometheus 0.0.4."""
        encode, content_type = choose_encoder(accept)
        if content_type.startswith("application/openmetrics-text"):
            # Every name here is valid in both formats; escaping would only turn the colon of `vllm:` into an underscore.
            text = openmetrics.generate_latest(self.registry, escaping=openmetrics.ALLOWUTF8)  # type: ignore[no-untyped-call]
            return text, "application/openmetrics-text; version=1.0.0; charset=utf-8"
        return encode(self.registry), content_type

    def _counter(self, name: str, help: str, labels: tuple[str, ...]) -> _Family:
        return _Family(Counter(f"modelport_{name}", help, labels, registry=self.registry))

    def _gauge(self, name: str, help: str, labels: tuple[str, ...]) -> _Family:
        return _Family(Gauge(f"modelport_{name}", help, labels, registry=self.registry))

    def _histogram(self, name: str, help: str, labels: tuple[str, ...], buckets: tuple[float, ...]) -> _Family:
        return _Family(Histogram(f"modelport_{name}", help, labels, buckets=buckets, registry=self.registry))
