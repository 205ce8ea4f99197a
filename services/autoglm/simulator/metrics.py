"""The echo engine's load under vLLM's metric names, for whoever reads a foreign server's load."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from autoglm.inference.engine import EngineLoad


class LoadCollector(Collector):
    def __init__(self, model_name: str, load: Callable[[], EngineLoad]) -> None:
        self._labels = (model_name, "0")
        self._load = load

    def describe(self) -> Iterable[GaugeMetricFamily]:
        # Claims no names, so that several engines can be in one registry.
        return ()

    def collect(self) -> Iterable[GaugeMetricFamily]:
        load = self._load()
        yield self._gauge("num_requests_running", "Requests being worked on.", load.running)
        yield self._gauge("num_requests_waiting", "Requests waiting.", load.waiting)
        yield self._gauge("kv_cache_usage_perc", "Share of blocks in use.", load.kv_cache_usage)
        labels = ["model_name", "engine", "block_size", "num_gpu_blocks"]
        info = GaugeMetricFamily("vllm:cache_config_info", "The cache's size.", labels=labels)
        info.add_metric([*self._labels, str(load.kv_block_size), str(load.num_kv_blocks)], 1)
        yield info

    def _gauge(self, name: str, text: str, value: float) -> GaugeMetricFamily:
        gauge = GaugeMetricFamily(f"vllm:{name}", text, labels=["model_name", "engine"])
        gauge.add_metric(self._labels, value)
        return gauge
