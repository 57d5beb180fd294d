"""The names under which stock dashboards and the Kubernetes inference gateway look for some of our metrics."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import Gauge, Histogram
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

__all__ = ["CompatibleNames"]


class CompatibleNames(Collector):
    """Views of existing metrics under vLLM's names, made when they are read: they cost a request nothing."""

    def __init__(self, running: Gauge, waiting: Gauge, first_delta: Histogram, latency: Histogram) -> None:
        self._views = (
            ("vllm:num_requests_running", running),
            ("vllm:num_requests_waiting", waiting),
            ("vllm:time_to_first_token_seconds", first_delta),
            ("vllm:e2e_request_latency_seconds", latency),
        )

    def describe(self) -> Iterable[Metric]:
        """Nothing: the names clash with no metric of ours."""
        return []

    def collect(self) -> Iterable[Metric]:
        """The views, with the label `model_name` that their readers expect."""
        for name, source in self._views:
            for metric in source.collect():
                view = Metric(name, metric.documentation, metric.type)
                view.samples = [_renamed(sample, metric.name, name) for sample in metric.samples]
                yield view


def _renamed(sample: Sample, old: str, new: str) -> Sample:
    labels = {("model_name" if key == "model" else key): value for key, value in sample.labels.items()}
    return Sample(new + sample.name.removeprefix(old), labels, sample.value, sample.timestamp, sample.exemplar)
