"""Records each request of a gateway or a pod: one SERVER span, one outcome, metrics, one log line.

Prompts and outputs are never recorded. Where tracing is off, spans are no-ops that still propagate
a caller's trace.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Mapping
from typing import Literal, NamedTuple

import msgspec
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
)
from opentelemetry.util.types import AttributeValue
from prometheus_client import Gauge

from autoglm.common import errors, semconv
from autoglm.common.errors import Outcome
from autoglm.common.metrics import CounterChild, HistogramChild, observe
from autoglm.common.telemetry import PROPAGATOR, RecordLogger, tracer, unsampled_span

Protocol = Literal["grpc", "http"]
# Version 0 without spaces; ids are not all zeros.
_TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


class RequestSeries(NamedTuple):
    """The metrics of requests with the same label values; callers cache it."""

    requests: CounterChild
    durations: tuple[HistogramChild, ...]
    first_chunks: tuple[HistogramChild, ...]


class Ending(msgspec.Struct, frozen=True):
    """How a request ended."""

    protocol: Protocol
    outcome: Outcome
    code: str
    """The gRPC or HTTP status code."""
    seconds: float
    """The time since the request arrived."""
    first_chunk_seconds: float | None = None
    """The time from the request's arrival to the response's first chunk; None without one."""
    error_type: str = ""
    """The span's error; empty for success."""
    error_description: str = ""
    """More about it; the type again by default."""
    message: str = "done"
    level: int = logging.INFO


class RequestRecorder:
    """Records the requests of one service.

    Each request begins with `begin`, and ends with `count`; then `end_span` if its span is
    recording, and `log.log` if the log is enabled for the ending's level.
    """

    def __init__(self, log: logging.Logger, in_flight: Gauge) -> None:
        self.log = RecordLogger(log)
        self.in_flight = 0
        in_flight.set_function(lambda: self.in_flight)

    def begin(
        self, protocol: Protocol, route: str, request_id: str, carrier: Mapping[str, str]
    ) -> Span:
        """Count the request and return its span, a child of the one in the `carrier` headers.

        `route` is a gRPC method without its first slash, or HTTP's method and path template.
        """
        self.in_flight += 1
        span = None if carrier else unsampled_span()
        if span is None:
            parent = parent_of(carrier) if carrier else None
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

    def count(self, ending: Ending, series: RequestSeries) -> None:
        """Count the outcome and the times of a request that has ended."""
        self.in_flight -= 1
        series.requests.inc()
        observe(series.durations, ending.seconds)
        if ending.first_chunk_seconds is not None:
            observe(series.first_chunks, ending.first_chunk_seconds)


def end_span(span: Span, ending: Ending, attributes: Mapping[str, AttributeValue]) -> None:
    """End a request's span with `attributes`, the status code and the error."""
    span.set_attributes(attributes)
    if ending.protocol == "grpc":
        span.set_attribute(semconv.RPC_STATUS_CODE, ending.code)
    else:
        span.set_attribute(semconv.HTTP_RESPONSE_STATUS_CODE, int(ending.code))
    if ending.error_type:
        fail(span, ending.error_type, ending.error_description)
    span.end()


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


def parent_of(carrier: Mapping[str, str]) -> Context:
    """Return the context of the caller's span, as `PROPAGATOR.extract` does.

    Parses the usual header itself, at half of the cost.
    """
    header = carrier.get("traceparent", "")
    if "tracestate" in carrier or not _TRACEPARENT.fullmatch(header):
        return PROPAGATOR.extract(carrier)
    flags = TraceFlags(int(header[53:], 16))
    context = SpanContext(int(header[3:35], 16), int(header[36:52], 16), True, flags)
    return trace.set_span_in_context(NonRecordingSpan(context), Context())


def trace_headers(span: Span) -> dict[str, str]:
    """Return the headers that make another process's spans children of this one.

    The same as from `PROPAGATOR.inject`, at a third of its cost.
    """
    context = span.get_span_context()
    if not context.is_valid:
        return {}
    flags = context.trace_flags
    headers = {"traceparent": f"00-{context.trace_id:032x}-{context.span_id:016x}-{flags:02x}"}
    if context.trace_state:
        headers["tracestate"] = context.trace_state.to_header()
    return headers


def trace_id(span: Span) -> str:
    """Return the trace's id as in logs; empty without a trace."""
    context = span.get_span_context()
    return trace.format_trace_id(context.trace_id) if context.is_valid else ""
