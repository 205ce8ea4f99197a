"""Records each request: one SERVER span, one outcome, one access log line, metrics.

Called by the observe layer; proxy and admission add child spans. Prompts and outputs are never
recorded. Where tracing is off, spans are no-ops that still propagate a caller's trace to the pod.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache

from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from opentelemetry.util.types import AttributeValue

from autoglm.common import errors, semconv
from autoglm.common.errors import Outcome, outcome_of_status
from autoglm.common.telemetry import MODEL_CHARACTERS, PROPAGATOR, tracer
from autoglm.gateway.endpoints.endpoint import Endpoint
from autoglm.gateway.request.metrics import OTHER, Metrics
from autoglm.gateway.request.request import GatewayRequest, RequestRecord

# A caller's deadline is rounded on its way to the gateway.
_DEADLINE_SLACK = 0.01
_log = logging.getLogger("autoglm.gateway.request")


def error_of(failure: BaseException | None, overdue: bool) -> errors.AutoGLMError | None:
    """Returns the API error for an exception; None for success."""
    if failure is None or isinstance(failure, errors.AutoGLMError):
        return failure
    if isinstance(failure, asyncio.CancelledError | GeneratorExit):
        if overdue:
            return errors.DeadlineExceeded("the caller's deadline passed")
        return errors.Cancelled("the caller disconnected")
    if isinstance(failure, TimeoutError):
        return errors.DeadlineExceeded("the deadline passed")
    return errors.Internal(str(failure))


def code_of(request: GatewayRequest, status: int, error: errors.AutoGLMError | None) -> str:
    """Returns the gRPC or HTTP status code of the outcome."""
    if request.wire == "grpc":
        return error.grpc_status if error else "OK"
    return str(error.http_status if error else status)


class Observer:
    """Begins and ends the record of each request. `is_known` bounds the model label."""

    def __init__(
        self,
        metrics: Metrics,
        is_known: Callable[[str], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._metrics = metrics
        # Looking up a child is most of the cost of counting, and there are few.
        self._requests = cache(metrics.requests.labels)
        self._duration = cache(metrics.duration.labels)
        self._first_chunk = cache(metrics.first_chunk.labels)
        self._gen_ai_duration = cache(metrics.gen_ai_duration.labels)
        self._gen_ai_first_token = cache(metrics.gen_ai_first_token.labels)
        self._is_known = is_known
        self._clock = clock

    def begin(self, request: GatewayRequest, record: RequestRecord) -> None:
        self._metrics.in_flight.inc()
        parent = PROPAGATOR.extract(request.trace_headers) if request.trace_headers else None
        record.span = tracer.start_span(request.route, context=parent, kind=SpanKind.SERVER)
        if record.span.is_recording():
            record.span.set_attributes(_server_attributes(request))

    def end(
        self,
        request: GatewayRequest,
        record: RequestRecord,
        status: int,
        failure: BaseException | None,
    ) -> None:
        request, now = record.call or request, self._clock()
        error = error_of(failure, now >= request.deadline - _DEADLINE_SLACK)
        outcome = outcome_of_status(error.http_status if error else status)
        code = code_of(request, status, error)
        self._measure(request, record, now, outcome, code)
        if record.span.is_recording():
            record.span.set_attributes(_principal_attributes(record))
            _finish(record.span, request, code, error)
        record.span.end()
        if _log.isEnabledFor(logging.INFO):
            fields = _fields(request, record, now, outcome, code)
            _log.info(error.message if error else "done", extra={"fields": fields})

    def _measure(
        self,
        request: GatewayRequest,
        record: RequestRecord,
        now: float,
        outcome: Outcome,
        code: str,
    ) -> None:
        seconds = now - request.started
        model = request.model if self._is_known(request.model) else OTHER
        self._metrics.in_flight.dec()
        self._requests(request.route, model, outcome, code).inc()
        self._duration(request.route, model, outcome).observe(seconds)
        if request.info is None:
            return
        error_type = "" if outcome is Outcome.SERVED else code
        self._gen_ai_duration(request.info.operation, model, error_type).observe(seconds)
        if record.first_chunk:
            first = record.first_chunk - request.started
            self._first_chunk(request.route, model).observe(first)
            self._gen_ai_first_token(request.info.operation, model).observe(first)


@contextmanager
def child_span(
    record: RequestRecord, name: str, kind: SpanKind = SpanKind.INTERNAL
) -> Iterator[Span]:
    """Opens a child of the request's span; yields the request's own where nothing is recorded."""
    if not record.span.is_recording():
        yield record.span
        return
    context = trace.set_span_in_context(record.span)
    span = tracer.start_span(name, context=context, kind=kind)
    try:
        yield span
    except BaseException as error:
        fail(span, getattr(error, "reason", type(error).__name__))
        raise
    finally:
        span.end()


@contextmanager
def client_span(
    request: GatewayRequest, record: RequestRecord, endpoint: Endpoint
) -> Iterator[Span]:
    """Opens the GenAI span of one attempt, from sending the request to the end of the stream."""
    name = f"{request.info.operation} {request.model}" if request.info else request.route
    started = time.monotonic()
    with child_span(record, name, SpanKind.CLIENT) as span:
        if span is not record.span:
            span.set_attributes(_client_attributes(request, record, endpoint))
        try:
            yield span
        finally:
            if span is not record.span:
                span.set_attributes(_response_attributes(record, started))


def fail(span: Span, error_type: str) -> None:
    span.set_attribute(semconv.ERROR_TYPE, error_type)
    span.set_status(Status(StatusCode.ERROR, error_type))


def trace_headers(span: Span) -> dict[str, str]:
    """Returns the headers that make another process's spans children of this one."""
    carrier: dict[str, str] = {}
    if span.get_span_context().is_valid:
        PROPAGATOR.inject(carrier, trace.set_span_in_context(span))
    return carrier


def _server_attributes(request: GatewayRequest) -> Mapping[str, str]:
    if request.wire == "grpc":
        names = {semconv.RPC_SYSTEM_NAME: "grpc", semconv.RPC_METHOD: request.route}
    else:
        method, _, path = request.route.partition(" ")
        names = {semconv.HTTP_REQUEST_METHOD: method, semconv.HTTP_ROUTE: path}
    return names | {semconv.REQUEST_ID: request.request_id}


def _principal_attributes(record: RequestRecord) -> Mapping[str, str]:
    if record.principal is None:
        return {}
    return {
        semconv.ENDUSER_ID: record.principal.subject,
        semconv.TENANT: record.principal.tenant,
    }


def _client_attributes(
    request: GatewayRequest, record: RequestRecord, endpoint: Endpoint
) -> dict[str, AttributeValue]:
    attributes: dict[str, AttributeValue] = {
        semconv.GEN_AI_PROVIDER_NAME: semconv.PROVIDER,
        semconv.SERVER_ADDRESS: endpoint.host,
        semconv.SERVER_PORT: endpoint.port,
        semconv.ATTEMPT: record.attempts,
        semconv.ENDPOINT: endpoint.url,
    }
    if request.info is not None:
        attributes[semconv.GEN_AI_OPERATION_NAME] = request.info.operation.value
        attributes[semconv.GEN_AI_REQUEST_MODEL] = request.model
        attributes[semconv.GEN_AI_REQUEST_STREAM] = request.info.streaming
        sampling = request.info.sampling
        if sampling.max_tokens is not None:
            attributes[semconv.GEN_AI_REQUEST_MAX_TOKENS] = sampling.max_tokens
        if sampling.temperature is not None:
            attributes[semconv.GEN_AI_REQUEST_TEMPERATURE] = sampling.temperature
    return attributes


def _response_attributes(record: RequestRecord, started: float) -> dict[str, AttributeValue]:
    attributes: dict[str, AttributeValue] = {}
    if record.first_chunk:
        first = record.first_chunk - started
        attributes[semconv.GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK] = first
    if record.usage is not None:
        attributes[semconv.GEN_AI_USAGE_INPUT_TOKENS] = record.usage.input_tokens
        attributes[semconv.GEN_AI_USAGE_OUTPUT_TOKENS] = record.usage.output_tokens
        attributes[semconv.GEN_AI_RESPONSE_FINISH_REASONS] = record.usage.finish_reasons
    return attributes


def _finish(
    span: Span, request: GatewayRequest, code: str, error: errors.AutoGLMError | None
) -> None:
    if request.wire == "grpc":
        span.set_attribute(semconv.RPC_STATUS_CODE, code)
    else:
        span.set_attribute(semconv.HTTP_RESPONSE_STATUS_CODE, int(code))
    if error is not None:
        fail(span, error.reason)


def _fields(
    request: GatewayRequest, record: RequestRecord, now: float, outcome: Outcome, code: str
) -> dict[str, object]:
    context = record.span.get_span_context()
    fields: dict[str, object] = {
        "request_id": request.request_id,
        "route": request.route,
        "model": request.model[:MODEL_CHARACTERS],
        "outcome": outcome.value,
        "code": code,
        "seconds": round(now - request.started, 6),
        "attempts": record.attempts,
        "endpoint": record.endpoint,
        "why": record.why,
    }
    if record.principal is not None:
        fields["tenant"] = record.principal.tenant
        fields["subject"] = record.principal.subject
    if context.is_valid:
        fields["trace_id"] = trace.format_trace_id(context.trace_id)
    if record.queued:
        fields["queue_seconds"] = round(record.queued, 6)
    if record.first_chunk:
        fields["first_chunk_seconds"] = round(record.first_chunk - request.started, 6)
    if record.recoveries:
        fields["recoveries"] = record.recoveries
    if record.usage is not None:
        fields["input_tokens"] = record.usage.input_tokens
        fields["output_tokens"] = record.usage.output_tokens
    return fields


def note_decision(span: Span, record: RequestRecord) -> None:
    if span is not record.span:
        span.set_attribute(semconv.ENDPOINT, record.endpoint)
        span.set_attribute(semconv.DECISION, record.why)
        span.set_attribute(semconv.ATTEMPT, record.attempts)


def note_wait(span: Span, record: RequestRecord) -> None:
    if span is not record.span:
        span.set_attribute(semconv.QUEUE_SECONDS, record.queued)


def note_recovery(record: RequestRecord, broken: str) -> None:
    """Records that the record's endpoint has resumed the stream of the endpoint `broken`."""
    record.span.add_event("autoglm.stream.recovered", {semconv.ENDPOINT: record.endpoint})
    _log.info(
        "stream resumed on another pod",
        extra={"fields": {"broken": broken, "endpoint": record.endpoint}},
    )
