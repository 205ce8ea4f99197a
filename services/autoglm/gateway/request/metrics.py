"""The gateway's Prometheus metrics. Names are documented in docs/metrics.md, which a test checks.

Label values are bounded: `model` is a served name or `other`, `method` one of the served methods.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge

from autoglm.common.metrics import CounterFamily, HistogramFamily

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
    """The memory budget's use in bytes, read at each scrape."""

    @property
    def held(self) -> int: ...


class FollowedQueue(Protocol):
    """The values of a queue's gauges, read at each scrape from another thread."""

    @property
    def waiting(self) -> int: ...
    @property
    def waiting_bytes(self) -> int: ...
    @property
    def admitted(self) -> int: ...
    @property
    def capacity(self) -> _Capacity: ...
    @property
    def reserved(self) -> int: ...


class ConnectionMetrics:
    """The connections of the REST port on the data plane embedded; `http1.rules.Events`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._open = 0
        self._gauge = Gauge(
            "autoglm_gateway_http_connections",
            "Open connections of the REST port, idle ones included.",
            registry=registry,
        )
        self._gauge.set_function(lambda: self._open)
        self._accepted = CounterFamily(
            "autoglm_gateway_http_connections_accepted",
            "Connections of the REST port that were accepted.",
            (),
            registry=registry,
        )
        self._count_accepted = self._accepted.labels().inc
        self._closed = CounterFamily(
            "autoglm_gateway_http_connections_closed",
            "Accepted connections of the REST port that were closed, by reason.",
            ("reason",),
            registry=registry,
        )
        self._rejected = CounterFamily(
            "autoglm_gateway_http_connections_rejected",
            "Connections of the REST port that were closed before a request, by reason.",
            ("reason",),
            registry=registry,
        )

    def accepted(self) -> None:
        self._count_accepted()
        self._open += 1

    def closed(self, reason: str) -> None:
        self._closed.labels(reason).inc()
        self._open -= 1

    def rejected(self, reason: str) -> None:
        self._rejected.labels(reason).inc()


class Metrics:
    """All metrics of the gateway, in one registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._of_requests(registry)
        self._of_queues(registry)
        self._of_endpoints(registry)
        self._of_callers(registry)
        self.connections = ConnectionMetrics(registry)

    def _of_requests(self, registry: CollectorRegistry) -> None:
        self.requests = CounterFamily(
            "autoglm_gateway_requests",
            "Completed requests, by outcome and by the status code sent to the client.",
            ("method", "model", "outcome", "code"),
            registry=registry,
        )
        self.duration = HistogramFamily(
            "autoglm_gateway_request_duration_seconds",
            "Time from receiving the request to the end of its response.",
            ("method", "model", "outcome"),
            buckets=_DURATION,
            registry=registry,
        )
        self.first_chunk = HistogramFamily(
            "autoglm_gateway_time_to_first_chunk_seconds",
            "Time from receiving the request to the first chunk from a pod.",
            ("method", "model"),
            buckets=_FIRST_CHUNK,
            registry=registry,
        )
        self.in_flight = Gauge(
            "autoglm_gateway_requests_in_flight",
            "Requests in flight, open streams included.",
            registry=registry,
        )
        self.request_memory = Gauge(
            "autoglm_gateway_request_memory_bytes",
            "Memory held by open requests: bodies, transcripts for recovery and a fixed part each.",
            registry=registry,
        )
        self.gen_ai_duration = HistogramFamily(
            "gen_ai_server_request_duration_seconds",
            "OpenTelemetry's gen_ai.server.request.duration, measured by the gateway.",
            ("gen_ai_operation_name", "gen_ai_request_model", "error_type"),
            buckets=_GEN_AI_DURATION,
            registry=registry,
        )
        self.gen_ai_first_token = HistogramFamily(
            "gen_ai_server_time_to_first_token_seconds",
            "OpenTelemetry's gen_ai.server.time_to_first_token, measured by the gateway.",
            ("gen_ai_operation_name", "gen_ai_request_model"),
            buckets=_FIRST_CHUNK,
            registry=registry,
        )

    def _of_queues(self, registry: CollectorRegistry) -> None:
        self.queue_requests = Gauge(
            "autoglm_gateway_queue_requests",
            "Requests waiting in the admission queue.",
            ("model",),
            registry=registry,
        )
        self.queue_bytes = Gauge(
            "autoglm_gateway_queue_bytes",
            "Bytes of the bodies of requests waiting in the admission queue.",
            ("model",),
            registry=registry,
        )
        self.admitted = Gauge(
            "autoglm_gateway_admitted_requests",
            "Requests that were admitted and have not ended.",
            ("model",),
            registry=registry,
        )
        self.capacity = Gauge(
            "autoglm_gateway_capacity_requests",
            "Slots of the model: requests that its ready pods may have in flight at once.",
            ("model",),
            registry=registry,
        )
        self.reserved = Gauge(
            "autoglm_gateway_reserved_requests",
            "Slots of the capacity that are reserved now for tenants with few requests.",
            ("model",),
            registry=registry,
        )
        self.queue_seconds = HistogramFamily(
            "autoglm_gateway_queue_duration_seconds",
            "Time that requests waited in the queue, those that did not wait included.",
            ("model", "outcome"),
            buckets=_QUEUE,
            registry=registry,
        )
        self.rejected = CounterFamily(
            "autoglm_gateway_queue_rejections",
            "Requests rejected by the queue, by the error's reason.",
            ("model", "reason"),
            registry=registry,
        )

    def _of_endpoints(self, registry: CollectorRegistry) -> None:
        self.routing_decisions = CounterFamily(
            "autoglm_gateway_routing_decisions",
            "Routing decisions, by policy and by the reason for the endpoint.",
            ("policy", "reason"),
            registry=registry,
        )
        self.prefix_knowledge = CounterFamily(
            "autoglm_gateway_prefix_knowledge",
            "Routing decisions by cached prefixes, by how exactly the endpoint's cache was known.",
            ("knowledge",),
            registry=registry,
        )
        self.kv_streams = Gauge(
            "autoglm_gateway_kv_event_streams",
            "Open streams of KV events, one for each pod that publishes them.",
            registry=registry,
        )
        self.kv_breaks = CounterFamily(
            "autoglm_gateway_kv_event_stream_breaks",
            "Streams of KV events that had to be reopened, by reason.",
            ("reason",),
            registry=registry,
        )
        self.endpoints = Gauge(
            "autoglm_gateway_endpoints",
            "Endpoints, by state.",
            ("state",),
            registry=registry,
        )
        self.ejections = Counter(
            "autoglm_gateway_endpoint_ejections",
            "Ejections of endpoints because of a failure.",
            registry=registry,
        )
        self.retries = CounterFamily(
            "autoglm_gateway_retries",
            "Retries on another endpoint; `exhausted` counts those beyond the retry budget.",
            ("result",),
            registry=registry,
        )
        self.hedges = CounterFamily(
            "autoglm_gateway_hedges",
            "Hedges: second attempts of requests whose first chunk was late, by result.",
            ("result",),
            registry=registry,
        )
        self.recoveries = CounterFamily(
            "autoglm_gateway_recoveries",
            "Streams that lost their pod after the first chunk, by outcome of the recovery.",
            ("outcome",),
            registry=registry,
        )

    def _of_callers(self, registry: CollectorRegistry) -> None:
        self.authentications = CounterFamily(
            "autoglm_gateway_authentications",
            "Authentication attempts, by credential type and outcome.",
            ("method", "outcome"),
            registry=registry,
        )
        self.rate_limited = CounterFamily(
            "autoglm_gateway_rate_limited",
            "Requests rejected by a tenant's rate limit, by the limit exceeded.",
            ("limit",),
            registry=registry,
        )

        self.unmetered = CounterFamily(
            "autoglm_gateway_unmetered_requests",
            "Requests of rate-limited tenants that were charged by an estimate, by reason.",
            ("reason",),
            registry=registry,
        )

    def follow_memory(self, memory: FollowedMemory) -> None:
        """Read the gauge of the memory budget from `memory` at each scrape."""
        self.request_memory.set_function(lambda: memory.held)

    def follow_queue(self, model: str, queue: FollowedQueue) -> None:
        """Read the gauges of the model's queue from `queue` at each scrape."""
        read: dict[Gauge, Callable[[], float]] = {
            self.queue_requests: lambda: queue.waiting,
            self.queue_bytes: lambda: queue.waiting_bytes,
            self.admitted: lambda: queue.admitted,
            self.capacity: lambda: queue.capacity.requests,
            self.reserved: lambda: queue.reserved,
        }
        for gauge, value in read.items():
            gauge.labels(model).set_function(value)

    def forget_queue(self, model: str) -> None:
        """Remove the gauges of the model's queue."""
        slots = (self.admitted, self.capacity, self.reserved)
        for gauge in (self.queue_requests, self.queue_bytes, *slots):
            gauge.remove(model)
