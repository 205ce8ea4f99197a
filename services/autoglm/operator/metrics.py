"""The operator's own metrics. Names are documented in docs/metrics.md, which a test checks."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from autoglm.kube.verbs import ApiCall

_DURATION = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """All of them, in one registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._of_reconciles(registry)
        self._of_the_api(registry)
        self._of_what_there_is(registry)

    def _of_reconciles(self, registry: CollectorRegistry) -> None:
        self.reconciles = Counter(
            "autoglm_operator_reconciles",
            "Looks at a resource that have ended, by result.",
            ("result",),
            registry=registry,
        )
        self.duration = Histogram(
            "autoglm_operator_reconcile_duration_seconds",
            "From the beginning of a look at a resource to its last write.",
            buckets=_DURATION,
            registry=registry,
        )
        self.queue = Gauge(
            "autoglm_operator_queue_depth",
            "Resources that wait for a worker or for their time.",
            registry=registry,
        )
        self.failing = Gauge(
            "autoglm_operator_failing_resources",
            "Resources whose last reconcile failed.",
            registry=registry,
        )
        self.conflicts = Gauge(
            "autoglm_operator_conflicting_fields",
            "Fields of children that other appliers own and want otherwise.",
            registry=registry,
        )

    def _of_the_api(self, registry: CollectorRegistry) -> None:
        self.calls = Counter(
            "autoglm_operator_api_calls",
            "Requests to the API server, watches not counted; code none is no answer.",
            ("verb", "code"),
            registry=registry,
        )
        self.call_duration = Histogram(
            "autoglm_operator_api_call_duration_seconds",
            "How long the API server took to answer.",
            ("verb",),
            buckets=_DURATION,
            registry=registry,
        )
        self.write_limit = Gauge(
            "autoglm_operator_write_concurrency_limit",
            "Writes to the API server that may be on their way at once.",
            registry=registry,
        )
        self.watches = Counter(
            "autoglm_operator_watch_restarts",
            "Times a kind was listed anew, by why.",
            ("kind", "reason"),
            registry=registry,
        )

        self.unavailable = Gauge(
            "autoglm_operator_unavailable_kinds",
            "1 while an optional kind that is installed cannot be listed.",
            ("kind",),
            registry=registry,
        )

    def _of_what_there_is(self, registry: CollectorRegistry) -> None:
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
        self.left = Gauge(
            "autoglm_operator_resources_left_to_others",
            "AutoGLMDeployments of this operator's class that another installation runs.",
            registry=registry,
        )
        self.cached = Gauge(
            "autoglm_operator_cached_objects",
            "Objects that the operator keeps of a kind.",
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
