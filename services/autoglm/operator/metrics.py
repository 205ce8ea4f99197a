"""The operator's own metrics. Names are documented in docs/metrics.md, which a test checks."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from autoglm.kube.verbs import ApiCall

_DURATION = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """All metrics of the operator, in one registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        counter = partial(Counter, registry=registry)
        gauge = partial(Gauge, registry=registry)
        histogram = partial(Histogram, registry=registry, buckets=_DURATION)
        self.reconciles = counter(
            "autoglm_operator_reconciles", "Reconciles, by result.", ("result",)
        )
        self.duration = histogram(
            "autoglm_operator_reconcile_duration_seconds",
            "Duration of a reconcile, including its writes, in seconds.",
        )
        self.queue = gauge(
            "autoglm_operator_queue_depth",
            "Resources in the queue, waiting for a worker or until they are due.",
        )
        self.failing = gauge(
            "autoglm_operator_failing_resources", "Resources whose last reconcile failed."
        )
        self.conflicts = gauge(
            "autoglm_operator_conflicting_fields",
            "Fields of children that other field managers own with another value.",
        )
        self.calls = counter(
            "autoglm_operator_api_calls",
            "Requests to the API server except watches, by verb and code; none is no response.",
            ("verb", "code"),
        )
        self.call_duration = histogram(
            "autoglm_operator_api_call_duration_seconds",
            "Latency of requests to the API server in seconds, except watches.",
            ("verb",),
        )
        self.write_limit = gauge(
            "autoglm_operator_write_concurrency_limit",
            "Limit of concurrent writes to the API server.",
        )
        self.watches = counter(
            "autoglm_operator_watch_restarts",
            "Lists of a kind that precede a watch, by cause.",
            ("kind", "reason"),
        )
        self.unavailable = gauge(
            "autoglm_operator_unavailable_kinds",
            "1 while an optional kind that is installed cannot be listed.",
            ("kind",),
        )
        self.leader = gauge("autoglm_operator_leader", "1 while this operator may write.")
        self.resources = gauge(
            "autoglm_operator_resources", "AutoGLMDeployments by phase.", ("phase",)
        )
        self.claimed_elsewhere = gauge(
            "autoglm_operator_resources_of_other_installations",
            "AutoGLMDeployments of this operator's class that another installation reconciles.",
        )
        self.cached = gauge(
            "autoglm_operator_cached_objects", "Objects in the cache, by kind.", ("kind",)
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
