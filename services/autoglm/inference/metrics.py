"""The pod's own Prometheus metrics; the engine's are beside them in the same registry.

Labels are bounded: methods are those of the served protocols, HTTP routes come from a fixed list.
"""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

REQUESTS = Counter(
    "autoglm_inference_requests",
    "Requests that ended, by protocol (grpc, http), method or route, and outcome.",
    ("protocol", "method", "outcome"),
)
IN_FLIGHT = Gauge("autoglm_inference_requests_in_flight", "Requests being served now.")
FIRST_CHUNK = Histogram(
    "autoglm_inference_time_to_first_chunk_seconds",
    "From a request's arrival to the first message or body byte of its answer.",
    ("protocol", "method"),
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
DURATION = Histogram(
    "autoglm_inference_request_duration_seconds",
    "From a request's arrival to the end of its answer.",
    ("protocol", "method"),
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300),
)
