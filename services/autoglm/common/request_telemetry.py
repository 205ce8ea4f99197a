"""Records each request of a gateway or a pod: one SERVER span, one outcome, metrics, one log line.

Prompts and outputs are never recorded. Where tracing is off, spans are no-ops that still propagate
a caller's trace.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Literal

from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from opentelemetry.util.types import AttributeValue
from prometheus_client import Counter, Gauge, Histogram

from autoglm.common import errors, semconv
from autoglm.common.errors import Outcome
from autoglm.common.telemetry import PROPAGATOR, tracer

Protocol = Literal["grpc", "http"]


@dataclass(frozen=True, slots=True)
class Ending:
    """How a request ended. The tuples are the label values of the metrics with these names."""

    protocol: Protocol
    outcome: Outcome
    code: str
    """The gRPC or HTTP status code."""
    seconds: float
    """The time since the request arrived."""
    requests: tuple[str, ...]
    duration: tuple[str, ...]
    first_chunk: tuple[str, ...]
    first_chunk_seconds: float | None = None
    """The time from the request's arrival to the response's first chunk; None without one."""
    error_type: str = ""
    """The span's error; empty for success."""
    error_description: str = ""
    """More about it; the type again by default."""
    message: str = "done"
    level: int = logging.INFO


class RequestRecorder:
    """Records the requests of one service from `begin` to `end`."""

    def __init__(
        self,
        log: logging.Logger,
        in_flight: Gauge,
        requests: Counter,
        duration: Histogram,
        first_chunk: Histogram,
    ) -> None:
        self._log = log
        self._in_flight = in_flight
        # Most of the cost of counting is the lookup by label values; these have few combinations.
        self._requests = cache(requests.labels)
        self._duration = cache(duration.labels)
        self._first_chunk = cache(first_chunk.labels)

    def begin(
        self, protocol: Protocol, route: str, request_id: str, carrier: Mapping[str, str]
    ) -> Span:
        """Count the request and return its span, a child of the one in the `carrier` headers.

        `route` is a gRPC method without its first slash, or HTTP's method and path template.
        """
        self._in_flight.inc()
        parent = PROPAGATOR.extract(carrier) if carrier else None
        span = tracer.start_span(route, context=parent, kind=SpanKind.SERVER)
        if span.is_recording():
            method, _, path = route.partition(" ")
            names = (
                {semconv.RPC_SYSTEM_NAME: "grpc", semconv.RPC_METHOD: route}
                if protocol == "grpc"
                else {semconv.HTTP_REQUEST_METHOD: method, semconv.HTTP_ROUTE: path}
            )
            span.set_attributes(names | {semconv.REQUEST_ID: request_id})
        return span

    def end(
        self,
        span: Span,
        ending: Ending,
        attributes: Callable[[], Mapping[str, AttributeValue]],
        fields: Callable[[], Mapping[str, object]],
    ) -> None:
        """End the span with `attributes`, count the outcome and log a line with `fields`.

        Both are called only if they are used.
        """
        self._in_flight.dec()
        self._requests(*ending.requests).inc()
        self._duration(*ending.duration).observe(ending.seconds)
        if ending.first_chunk_seconds is not None:
            self._first_chunk(*ending.first_chunk).observe(ending.first_chunk_seconds)
        if span.is_recording():
            span.set_attributes(attributes())
            if ending.protocol == "grpc":
                span.set_attribute(semconv.RPC_STATUS_CODE, ending.code)
            else:
                span.set_attribute(semconv.HTTP_RESPONSE_STATUS_CODE, int(ending.code))
            if ending.error_type:
                fail(span, ending.error_type, ending.error_description)
        span.end()
        if self._log.isEnabledFor(ending.level):
            self._log.log(ending.level, ending.message, extra={"fields": fields()})


def error_of(failure: BaseException | None, *, overdue: bool = False) -> errors.AutoGLMError | None:
    """Return the API error for an exception; None for success.

    A cancellation means that the client disconnected, or if `overdue`, that its deadline passed.
    """
    if failure is None or isinstance(failure, errors.AutoGLMError):
        return failure
    if isinstance(failure, asyncio.CancelledError | GeneratorExit):
        if overdue:
            return errors.DeadlineExceeded("the client's deadline passed")
        return errors.Cancelled("the client disconnected")
    if isinstance(failure, TimeoutError):
        return errors.DeadlineExceeded("the deadline passed")
    return errors.Internal(str(failure))


def fail(span: Span, error_type: str, description: str = "") -> None:
    """Set the status of a span to an error; its description is the type by default."""
    span.set_attribute(semconv.ERROR_TYPE, error_type)
    span.set_status(Status(StatusCode.ERROR, description or error_type))


def trace_headers(span: Span) -> dict[str, str]:
    """Return the headers that make another process's spans children of this one."""
    carrier: dict[str, str] = {}
    if span.get_span_context().is_valid:
        PROPAGATOR.inject(carrier, trace.set_span_in_context(span))
    return carrier


def trace_id(span: Span) -> str:
    """Return the trace's id as in logs; empty without a trace."""
    context = span.get_span_context()
    return trace.format_trace_id(context.trace_id) if context.is_valid else ""
