"""The gateway's own metrics. Names are documented in docs/metrics.md, which a test checks.

Label values are bounded: `model` is a served name or `other`, `method` one of the served methods.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

OTHER = "other"
# With 0.1, 0.3, 0.5 and 1.0, the bounds that service objectives are commonly set at.
_DURATION = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.5, 5.0, 10.0),
    *(20.0, 30.0, 60.0, 120.0, 300.0, 600.0),
)
_FIRST_CHUNK = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.3, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5),
    *(10.0, 30.0, 60.0),
)
# OpenTelemetry's GenAI buckets.
_GEN_AI_DURATION = tuple(0.01 * 2**i for i in range(14))
_QUEUE = (
    *(0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0),
    *(120.0, 300.0),
)


class _Capacity(Protocol):
    @property
    def requests(self) -> int: ...


class FollowedMemory(Protocol):
    """What requests hold, in bytes, read at each scrape."""

    @property
    def held(self) -> int: ...


class FollowedQueue(Protocol):
    """A queue as its gauges see it, at each scrape and from another thread."""

    @property
    def waiting(self) -> int: ...
    @property
    def waiting_bytes(self) -> int: ...
    @property
    def admitted(self) -> int: ...
    @property
    def capacity(self) -> _Capacity: ...
    @property
    def kept_free(self) -> int: ...


class Metrics:
    """All of them, in one registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._of_requests(registry)
        self._of_queues(registry)
        self._of_endpoints(registry)
        self._of_callers(registry)

    def _of_requests(self, registry: CollectorRegistry) -> None:
        self.requests = Counter(
            "autoglm_gateway_requests",
            "Requests that have ended, by outcome and by the code the client saw.",
            ("method", "model", "outcome", "code"),
            registry=registry,
        )
        self.duration = Histogram(
            "autoglm_gateway_request_duration_seconds",
            "From the request's arrival to the end of its answer.",
            ("method", "model", "outcome"),
            buckets=_DURATION,
            registry=registry,
        )
        self.first_chunk = Histogram(
            "autoglm_gateway_time_to_first_chunk_seconds",
            "From the request's arrival to the first chunk from a pod.",
            ("method", "model"),
            buckets=_FIRST_CHUNK,
            registry=registry,
        )
        self.in_flight = Gauge(
            "autoglm_gateway_requests_in_flight",
            "Requests being served, their streams included.",
            registry=registry,
        )
        self.request_memory = Gauge(
            "autoglm_gateway_request_memory_bytes",
            "Memory that open requests hold: bodies, what is kept for recovery, a part for each.",
            registry=registry,
        )
        self.gen_ai_duration = Histogram(
            "gen_ai_server_request_duration_seconds",
            "OpenTelemetry's gen_ai.server.request.duration, as seen by the gateway.",
            ("gen_ai_operation_name", "gen_ai_request_model", "error_type"),
            buckets=_GEN_AI_DURATION,
            registry=registry,
        )
        self.gen_ai_first_token = Histogram(
            "gen_ai_server_time_to_first_token_seconds",
            "OpenTelemetry's gen_ai.server.time_to_first_token, as seen by the gateway.",
            ("gen_ai_operation_name", "gen_ai_request_model"),
            buckets=_FIRST_CHUNK,
            registry=registry,
        )

    def _of_queues(self, registry: CollectorRegistry) -> None:
        self.queue_requests = Gauge(
            "autoglm_gateway_queue_requests",
            "Requests that wait for their turn.",
            ("model",),
            registry=registry,
        )
        self.queue_bytes = Gauge(
            "autoglm_gateway_queue_bytes",
            "Bytes of the bodies of requests that wait for their turn.",
            ("model",),
            registry=registry,
        )
        self.admitted = Gauge(
            "autoglm_gateway_admitted_requests",
            "Requests that have been let on to the pods and have not ended.",
            ("model",),
            registry=registry,
        )
        self.capacity = Gauge(
            "autoglm_gateway_capacity_requests",
            "Requests that the model's ready pods may be sent at once, as admission sees it.",
            ("model",),
            registry=registry,
        )
        self.kept_free = Gauge(
            "autoglm_gateway_kept_free_requests",
            "Of the capacity, what is kept free now for tenants that ask for little.",
            ("model",),
            registry=registry,
        )
        self.queue_seconds = Histogram(
            "autoglm_gateway_queue_duration_seconds",
            "How long requests waited for their turn, those that did not wait included.",
            ("model", "outcome"),
            buckets=_QUEUE,
            registry=registry,
        )
        self.rejected = Counter(
            "autoglm_gateway_queue_rejections",
            "Requests that the queue refused, by the error's reason.",
            ("model", "reason"),
            registry=registry,
        )

    def _of_endpoints(self, registry: CollectorRegistry) -> None:
        self.routing_decisions = Counter(
            "autoglm_gateway_routing_decisions",
            "Choices of an endpoint, by policy and by what decided in the end.",
            ("policy", "reason"),
            registry=registry,
        )
        self.prefix_knowledge = Counter(
            "autoglm_gateway_prefix_knowledge",
            "Choices that looked at cached prompts, by what was known of the endpoint taken.",
            ("knowledge",),
            registry=registry,
        )
        self.kv_streams = Gauge(
            "autoglm_gateway_kv_event_streams",
            "Pods whose KV cache is followed by its events.",
            registry=registry,
        )
        self.kv_breaks = Counter(
            "autoglm_gateway_kv_event_stream_breaks",
            "Times a stream of KV-cache events had to be opened anew.",
            ("reason",),
            registry=registry,
        )
        self.endpoints = Gauge(
            "autoglm_gateway_endpoints",
            "Endpoints in each state.",
            ("state",),
            registry=registry,
        )
        self.ejections = Counter(
            "autoglm_gateway_endpoint_ejections",
            "Times an endpoint left the pool because of a failure.",
            registry=registry,
        )
        self.retries = Counter(
            "autoglm_gateway_retries",
            "Attempts on another endpoint; `exhausted` counts those the budget did not allow.",
            ("result",),
            registry=registry,
        )
        self.hedges = Counter(
            "autoglm_gateway_hedges",
            "Requests sent a second time because their first chunk was late.",
            ("result",),
            registry=registry,
        )
        self.recoveries = Counter(
            "autoglm_gateway_recoveries",
            "Streams that lost their pod after the first chunk, by what became of them.",
            ("outcome",),
            registry=registry,
        )

        self.process_restarts = Counter(
            "autoglm_gateway_process_restarts",
            "Processes beside the first one (--processes) that ended by themselves.",
            ("number",),
            registry=registry,
        )

    def _of_callers(self, registry: CollectorRegistry) -> None:
        self.authentications = Counter(
            "autoglm_gateway_authentications",
            "Requests that had to say who asks, by kind of credential and outcome.",
            ("method", "outcome"),
            registry=registry,
        )
        self.rate_limited = Counter(
            "autoglm_gateway_rate_limited",
            "Requests refused because their tenant's rate was used up, by what it counts.",
            ("limit",),
            registry=registry,
        )

        self.unmetered = Counter(
            "autoglm_gateway_unmetered_requests",
            "Served requests of tenants with limits that were charged by an estimate, by reason.",
            ("reason",),
            registry=registry,
        )

    def follow_memory(self, memory: FollowedMemory) -> None:
        self.request_memory.set_function(lambda: memory.held)

    def follow_queue(self, model: str, queue: FollowedQueue) -> None:
        """Its gauges are read off the queue when they are scraped."""
        read: dict[Gauge, Callable[[], float]] = {
            self.queue_requests: lambda: queue.waiting,
            self.queue_bytes: lambda: queue.waiting_bytes,
            self.admitted: lambda: queue.admitted,
            self.capacity: lambda: queue.capacity.requests,
            self.kept_free: lambda: queue.kept_free,
        }
        for gauge, value in read.items():
            gauge.labels(model).set_function(value)

    def forget_queue(self, model: str) -> None:
        places = (self.admitted, self.capacity, self.kept_free)
        for gauge in (self.queue_requests, self.queue_bytes, *places):
            gauge.remove(model)
