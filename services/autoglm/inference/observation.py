"""Records each request of a pod: one SERVER span, one outcome, one log line, and metrics.

The engine's own metrics are in the same registry. Used by the gRPC interceptor and the HTTP
middleware. Prompts and outputs are never recorded.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from opentelemetry import trace
from opentelemetry.trace import SpanKind, Status, StatusCode
from prometheus_client import Counter, Gauge, Histogram

from autoglm import v1
from autoglm.common import errors, semconv
from autoglm.common.errors import Outcome, outcome_of_status
from autoglm.common.telemetry import PROPAGATOR, tracer
from autoglm.common.usage import Counted

_log = logging.getLogger("autoglm.inference.request")

# Labels are bounded: methods are those of the served protocols, HTTP routes come from a fixed list.
REQUESTS = Counter(
    "autoglm_inference_requests",
    "Requests that ended, by protocol (grpc, http), method or route, and outcome.",
    ("protocol", "method", "outcome"),
)
IN_FLIGHT = Gauge("autoglm_inference_requests_in_flight", "Requests being served now.")
FIRST_CHUNK = Histogram(
    "autoglm_inference_time_to_first_chunk_seconds",
    "From a request's arrival to the first message or body byte of its response.",
    ("protocol", "method"),
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
DURATION = Histogram(
    "autoglm_inference_request_duration_seconds",
    "From a request's arrival to the end of its response.",
    ("protocol", "method"),
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300),
)


def outcome_of(failure: BaseException | None) -> Outcome:
    if failure is None:
        return Outcome.SERVED
    if isinstance(failure, errors.AutoGLMError):
        return outcome_of_status(failure.http_status)
    if isinstance(failure, asyncio.CancelledError | GeneratorExit):
        return Outcome.CANCELLED
    return Outcome.EXPIRED if isinstance(failure, TimeoutError) else Outcome.FAILED


@dataclass(slots=True)
class Observation:
    """The record of one request, from `begin` to `end`."""

    protocol: str
    method: str
    request_id: str
    span: trace.Span
    started: float
    first_chunk: float = 0.0
    attributes: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def begin(
        cls, protocol: str, method: str, request_id: str, carrier: Mapping[str, str]
    ) -> Observation:
        parent = PROPAGATOR.extract(carrier) if carrier else None
        span = tracer.start_span(method, context=parent, kind=SpanKind.SERVER)
        IN_FLIGHT.inc()
        return cls(protocol, method, request_id, span, time.monotonic())

    def carrier(self) -> dict[str, str]:
        """Trace headers that make what follows a child of this request's span."""
        headers: dict[str, str] = {}
        PROPAGATOR.inject(headers, trace.set_span_in_context(self.span))
        return headers

    def chunk(self) -> None:
        """Records that a chunk of the response is about to be sent."""
        if not self.first_chunk:
            self.first_chunk = time.monotonic()

    def end(self, outcome: Outcome, code: str, message: str = "") -> None:
        seconds = time.monotonic() - self.started
        IN_FLIGHT.dec()
        REQUESTS.labels(self.protocol, self.method, outcome).inc()
        DURATION.labels(self.protocol, self.method).observe(seconds)
        if self.first_chunk:
            first = self.first_chunk - self.started
            FIRST_CHUNK.labels(self.protocol, self.method).observe(first)
            self.attributes[semconv.GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK] = first
        self._end_span(outcome, code)
        # Gateways poll a loading pod every other second; INFO would flood the log.
        level = logging.DEBUG if outcome is Outcome.REJECTED_UNAVAILABLE else logging.INFO
        if _log.isEnabledFor(level):
            fields = self._fields(seconds, outcome, code)
            _log.log(level, message or "done", extra={"fields": fields})

    def _end_span(self, outcome: Outcome, code: str) -> None:
        if self.span.is_recording():
            self.span.set_attributes(self.attributes)
            self.span.set_attribute(semconv.REQUEST_ID, self.request_id)
            if outcome is not Outcome.SERVED:
                self.span.set_attribute(semconv.ERROR_TYPE, code)
                self.span.set_status(Status(StatusCode.ERROR, outcome))
        self.span.end()

    def _fields(self, seconds: float, outcome: Outcome, code: str) -> dict[str, Any]:
        context = self.span.get_span_context()
        trace_id = trace.format_trace_id(context.trace_id) if context.is_valid else ""
        first = self.first_chunk - self.started if self.first_chunk else None
        return {
            "request_id": self.request_id,
            "trace_id": trace_id,
            "protocol": self.protocol,
            "method": self.method,
            "outcome": outcome,
            "code": code,
            "seconds": round(seconds, 6),
            "first_chunk_seconds": None if first is None else round(first, 6),
            "model": self.attributes.get(semconv.GEN_AI_REQUEST_MODEL, ""),
            "input_tokens": self.attributes.get(semconv.GEN_AI_USAGE_INPUT_TOKENS),
            "output_tokens": self.attributes.get(semconv.GEN_AI_USAGE_OUTPUT_TOKENS),
        }


def counted_of(message: Any) -> Counted | None:
    """Returns the usage of a response or of a stream's last chunk; None where it has none."""
    usage = getattr(message, "usage", None)
    if usage is None:
        return None
    return Counted(usage.prompt_tokens, usage.completion_tokens, _reasons(message))


def _reasons(message: Any) -> tuple[str, ...]:
    """Why each choice ended, in lower case, as far as it says."""
    parts = getattr(message, "completions", None) or getattr(message, "choices", None) or (message,)
    given = (getattr(part, "finish_reason", 0) for part in parts)
    names = (v1.FinishReason.Name(reason) for reason in given if reason)
    return tuple(name.removeprefix("FINISH_REASON_").lower() for name in names)
