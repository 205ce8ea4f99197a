"""What a pod records of each request: one SERVER span, one outcome, one log line, metrics.

Used by the gRPC interceptor and the HTTP middleware alike. Prompts and outputs are never recorded.
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

from autoglm.common import errors, semconv
from autoglm.common.outcomes import Outcome, outcome_of_status
from autoglm.common.telemetry import PROPAGATOR, tracer
from autoglm.inference import metrics

_log = logging.getLogger("autoglm.inference.request")


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
        metrics.IN_FLIGHT.inc()
        return cls(protocol, method, request_id, span, time.monotonic())

    def carrier(self) -> dict[str, str]:
        """Trace headers that make what follows a child of this request's span."""
        headers: dict[str, str] = {}
        PROPAGATOR.inject(headers, trace.set_span_in_context(self.span))
        return headers

    def chunk(self) -> None:
        """A piece of the answer is about to go out."""
        if not self.first_chunk:
            self.first_chunk = time.monotonic()

    def end(self, outcome: Outcome, code: str, message: str = "") -> None:
        seconds = time.monotonic() - self.started
        metrics.IN_FLIGHT.dec()
        metrics.REQUESTS.labels(self.protocol, self.method, outcome).inc()
        metrics.DURATION.labels(self.protocol, self.method).observe(seconds)
        if self.first_chunk:
            first = self.first_chunk - self.started
            metrics.FIRST_CHUNK.labels(self.protocol, self.method).observe(first)
            self.attributes[semconv.GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK] = first
        self._end_span(outcome, code)
        # Gateways ask a loading pod every other second; that is no news.
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
