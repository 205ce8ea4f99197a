"""The operator's own metrics. Names are documented in docs/metrics.md, which a test checks."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from autoglm.kube.verbs import ApiCall

_DURATION = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """All metrics of the operator, in one registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._add_reconcile_metrics(registry)
        self._add_api_metrics(registry)
        self._add_object_metrics(registry)

    def _add_reconcile_metrics(self, registry: CollectorRegistry) -> None:
        self.reconciles = Counter(
            "autoglm_operator_reconciles",
            "Reconciles, by result.",
            ("result",),
            registry=registry,
        )
        self.duration = Histogram(
            "autoglm_operator_reconcile_duration_seconds",
            "Duration of a reconcile, including its writes, in seconds.",
            buckets=_DURATION,
            registry=registry,
        )
        self.queue = Gauge(
            "autoglm_operator_queue_depth",
            "Resources in the queue, waiting for a worker or until they are due.",
            registry=registry,
        )
        self.failing = Gauge(
            "autoglm_operator_failing_resources",
            "Resources whose last reconcile failed.",
            registry=registry,
        )
        self.conflicts = Gauge(
            "autoglm_operator_conflicting_fields",
            "Fields of children that other field managers own with another value.",
            registry=registry,
        )

    def _add_api_metrics(self, registry: CollectorRegistry) -> None:
        self.calls = Counter(
            "autoglm_operator_api_calls",
            "Requests to the API server except watches, by verb and code; none is no response.",
            ("verb", "code"),
            registry=registry,
        )
        self.call_duration = Histogram(
            "autoglm_operator_api_call_duration_seconds",
            "Latency of requests to the API server in seconds, except watches.",
            ("verb",),
            buckets=_DURATION,
            registry=registry,
        )
        self.write_limit = Gauge(
            "autoglm_operator_write_concurrency_limit",
            "Limit of concurrent writes to the API server.",
            registry=registry,
        )
        self.watches = Counter(
            "autoglm_operator_watch_restarts",
            "Lists of a kind that precede a watch, by cause.",
            ("kind", "reason"),
            registry=registry,
        )
        self.unavailable = Gauge(
            "autoglm_operator_unavailable_kinds",
            "1 while an optional kind that is installed cannot be listed.",
            ("kind",),
            registry=registry,
        )

    def _add_object_metrics(self, registry: CollectorRegistry) -> None:
        self.leader = Gauge(
            "autoglm_operator_leader",
            "1 while this operator may write.",
            registry=registry,
        )
        self.resources = Gauge(
            "autoglm_operator_resources",
            "AutoGLMDeployments by phase.",
            ("phase",),
            registry=registry,
        )
        self.claimed_elsewhere = Gauge(
            "autoglm_operator_resources_of_other_installations",
            "AutoGLMDeployments of this operator's class that another installation reconciles.",
            registry=registry,
        )
        self.cached = Gauge(
            "autoglm_operator_cached_objects",
            "Objects in the cache, by kind.",
            ("kind",),
            registry=registry,
        )

    @contextmanager
    def api_call(self, verb: str) -> Iterator[ApiCall]:
        call, began = ApiCall(), time.perf_counter()
        try:
            yield call
        finally:
            self.calls.labels(verb, call.code).inc()
            self.call_duration.labels(verb).observe(time.perf_counter() - began)

    def watch_restarted(self, kind: str, reason: str) -> None:
        self.watches.labels(kind, reason).inc()
