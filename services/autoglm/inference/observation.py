"""A pod's record of each request; `common.request_telemetry` writes it.

The engine's own metrics are in the same registry. Used by the gRPC interceptor and the HTTP
middleware.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from opentelemetry.trace import Span
from prometheus_client import Gauge

from autoglm.common import semconv
from autoglm.common.errors import Outcome, outcome_of_status
from autoglm.common.metrics import CounterFamily, HistogramFamily
from autoglm.common.request_telemetry import (
    Ending,
    Protocol,
    RequestRecorder,
    RequestSeries,
    end_span,
    error_of,
    trace_id,
)

_log = logging.getLogger("autoglm.inference.request")

# Labels are bounded: methods are those of the served protocols, HTTP routes come from a fixed list.
REQUESTS = CounterFamily(
    "autoglm_inference_requests",
    "Requests that ended, by protocol (grpc, http), method or route, and outcome.",
    ("protocol", "method", "outcome"),
)
IN_FLIGHT = Gauge("autoglm_inference_requests_in_flight", "Requests being served now.")
FIRST_CHUNK = HistogramFamily(
    "autoglm_inference_time_to_first_chunk_seconds",
    "From a request's arrival to the first message or body byte of its response.",
    ("protocol", "method"),
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
DURATION = HistogramFamily(
    "autoglm_inference_request_duration_seconds",
    "From a request's arrival to the end of its response.",
    ("protocol", "method"),
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300),
)


_recorder = RequestRecorder(_log, IN_FLIGHT)


@cache
def _series(protocol: Protocol, method: str, outcome: Outcome) -> RequestSeries:
    return RequestSeries(
        REQUESTS.labels(protocol, method, outcome),
        (DURATION.labels(protocol, method),),
        (FIRST_CHUNK.labels(protocol, method),),
    )


def outcome_of(failure: BaseException | None) -> Outcome:
    """Return the outcome of a request that raised this exception, or none."""
    error = error_of(failure)
    return Outcome.SERVED if error is None else outcome_of_status(error.http_status)


@dataclass(slots=True)
class Observation:
    """The record of one request, from `begin` to `end`."""

    protocol: Protocol
    method: str
    request_id: str
    span: Span
    started: float
    first_chunk: float = 0.0
    attributes: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def begin(
        cls, protocol: Protocol, method: str, request_id: str, carrier: Mapping[str, str]
    ) -> Observation:
        """Begin the request's span, a child of the one in the `carrier` headers."""
        span = _recorder.begin(protocol, method, request_id, carrier)
        return cls(protocol, method, request_id, span, time.monotonic())

    def chunk(self) -> None:
        """Record that a chunk of the response is about to be sent."""
        if not self.first_chunk:
            self.first_chunk = time.monotonic()

    def end(self, outcome: Outcome, code: str, message: str = "") -> None:
        """Record how the request ended; `code` is the gRPC or HTTP status code."""
        first = self.first_chunk - self.started if self.first_chunk else None
        if first is not None:
            self.attributes[semconv.GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK] = first
        ending = Ending(
            self.protocol,
            outcome,
            code,
            time.monotonic() - self.started,
            first,
            error_type="" if outcome is Outcome.SERVED else code,
            error_description=outcome,
            message=message or "done",
            # Gateways poll a loading pod every other second; INFO would flood the log.
            level=logging.DEBUG if outcome is Outcome.REJECTED_UNAVAILABLE else logging.INFO,
        )
        _recorder.count(ending, _series(self.protocol, self.method, outcome))
        if self.span.is_recording():
            end_span(self.span, ending, self.attributes)
        if _recorder.log.is_enabled_for(ending.level):
            _recorder.log.log(ending.level, ending.message, self._fields(ending))

    def _fields(self, ending: Ending) -> dict[str, object]:
        first = ending.first_chunk_seconds
        return {
            "request_id": self.request_id,
            "trace_id": trace_id(self.span),
            "protocol": self.protocol,
            "method": self.method,
            "outcome": ending.outcome,
            "code": ending.code,
            "seconds": round(ending.seconds, 6),
            "first_chunk_seconds": None if first is None else round(first, 6),
            "model": self.attributes.get(semconv.GEN_AI_REQUEST_MODEL, ""),
            "input_tokens": self.attributes.get(semconv.GEN_AI_USAGE_INPUT_TOKENS),
            "output_tokens": self.attributes.get(semconv.GEN_AI_USAGE_OUTPUT_TOKENS),
        }
