"""What is recorded of a request: one SERVER span, one outcome, one log line, metrics.

Called by the observe layer; relays and admission add child spans. Prompts and outputs are never
recorded. Where tracing is off, spans are no-ops that still carry a caller's trace on to the pod.
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
from autoglm.common.outcomes import Outcome, outcome_of_status
from autoglm.common.telemetry import MODEL_CHARACTERS, PROPAGATOR, tracer
from autoglm.gateway.endpoints.endpoint import Endpoint
from autoglm.gateway.request.metrics import OTHER, Metrics
from autoglm.gateway.request.request import GatewayRequest, RequestRecord

# A caller's deadline reaches us with rounding on the way.
_DEADLINE_SLACK = 0.01
_log = logging.getLogger("autoglm.gateway.request")


def error_of(failure: BaseException | None, overdue: bool) -> errors.AutoGLMError | None:
    """The error that a failure amounts to."""
    if failure is None or isinstance(failure, errors.AutoGLMError):
        return failure
    if isinstance(failure, asyncio.CancelledError | GeneratorExit):
        if overdue:
            return errors.DeadlineExceeded("the caller's deadline passed")
        return errors.Cancelled("the caller went away")
    if isinstance(failure, TimeoutError):
        return errors.DeadlineExceeded("the deadline passed")
    return errors.Internal(str(failure))


def code_of(call: GatewayRequest, status: int, error: errors.AutoGLMError | None) -> str:
    """The code as the call's wire has it."""
    if call.wire == "grpc":
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
        # Looking a child up is most of what counting costs, and there are few.
        self._requests = cache(metrics.requests.labels)
        self._duration = cache(metrics.duration.labels)
        self._first_chunk = cache(metrics.first_chunk.labels)
        self._gen_ai_duration = cache(metrics.gen_ai_duration.labels)
        self._gen_ai_first_token = cache(metrics.gen_ai_first_token.labels)
        self._is_known = is_known
        self._clock = clock

    def begin(self, call: GatewayRequest, notes: RequestRecord) -> None:
        self._metrics.in_flight.inc()
        parent = PROPAGATOR.extract(call.trace_headers) if call.trace_headers else None
        notes.span = tracer.start_span(call.route, context=parent, kind=SpanKind.SERVER)
        if notes.span.is_recording():
            notes.span.set_attributes(_server_attributes(call))

    def end(
        self, call: GatewayRequest, notes: RequestRecord, status: int, failure: BaseException | None
    ) -> None:
        call, now = notes.call or call, self._clock()
        error = error_of(failure, now >= call.deadline - _DEADLINE_SLACK)
        outcome = outcome_of_status(error.http_status if error else status)
        code = code_of(call, status, error)
        self._measure(call, notes, now, outcome, code)
        if notes.span.is_recording():
            notes.span.set_attributes(_principal_attributes(notes))
            _finish(notes.span, call, code, error)
        notes.span.end()
        if _log.isEnabledFor(logging.INFO):
            fields = _fields(call, notes, now, outcome, code)
            _log.info(error.message if error else "done", extra={"fields": fields})

    def _measure(
        self, call: GatewayRequest, notes: RequestRecord, now: float, outcome: Outcome, code: str
    ) -> None:
        seconds = now - call.started
        model = call.model if self._is_known(call.model) else OTHER
        self._metrics.in_flight.dec()
        self._requests(call.route, model, outcome, code).inc()
        self._duration(call.route, model, outcome).observe(seconds)
        if call.info is None:
            return
        error_type = "" if outcome is Outcome.SERVED else code
        self._gen_ai_duration(call.info.operation, model, error_type).observe(seconds)
        if notes.first_chunk:
            first = notes.first_chunk - call.started
            self._first_chunk(call.route, model).observe(first)
            self._gen_ai_first_token(call.info.operation, model).observe(first)


@contextmanager
def child_span(
    notes: RequestRecord, name: str, kind: SpanKind = SpanKind.INTERNAL
) -> Iterator[Span]:
    """A span under the request's; the request's own where nothing is recorded."""
    if not notes.span.is_recording():
        yield notes.span
        return
    context = trace.set_span_in_context(notes.span)
    span = tracer.start_span(name, context=context, kind=kind)
    try:
        yield span
    except BaseException as error:
        fail(span, getattr(error, "reason", type(error).__name__))
        raise
    finally:
        span.end()


@contextmanager
def client_span(call: GatewayRequest, notes: RequestRecord, endpoint: Endpoint) -> Iterator[Span]:
    """The GenAI span around one attempt on a pod, from sending the request to the stream's end."""
    name = f"{call.info.operation} {call.model}" if call.info else call.route
    started = time.monotonic()
    with child_span(notes, name, SpanKind.CLIENT) as span:
        if span is not notes.span:
            span.set_attributes(_client_attributes(call, notes, endpoint))
        try:
            yield span
        finally:
            if span is not notes.span:
                span.set_attributes(_response_attributes(notes, started))


def fail(span: Span, error_type: str) -> None:
    span.set_attribute(semconv.ERROR_TYPE, error_type)
    span.set_status(Status(StatusCode.ERROR, error_type))


def trace_headers(span: Span) -> dict[str, str]:
    """The carrier that makes another process's spans children of this one."""
    carrier: dict[str, str] = {}
    if span.get_span_context().is_valid:
        PROPAGATOR.inject(carrier, trace.set_span_in_context(span))
    return carrier


def _server_attributes(call: GatewayRequest) -> Mapping[str, str]:
    if call.wire == "grpc":
        names = {semconv.RPC_SYSTEM_NAME: "grpc", semconv.RPC_METHOD: call.route}
    else:
        method, _, path = call.route.partition(" ")
        names = {semconv.HTTP_REQUEST_METHOD: method, semconv.HTTP_ROUTE: path}
    return names | {semconv.REQUEST_ID: call.request_id}


def _principal_attributes(notes: RequestRecord) -> Mapping[str, str]:
    if notes.principal is None:
        return {}
    return {
        semconv.ENDUSER_ID: notes.principal.subject,
        semconv.TENANT: notes.principal.tenant,
    }


def _client_attributes(
    call: GatewayRequest, notes: RequestRecord, endpoint: Endpoint
) -> dict[str, AttributeValue]:
    attributes: dict[str, AttributeValue] = {
        semconv.GEN_AI_PROVIDER_NAME: semconv.PROVIDER,
        semconv.SERVER_ADDRESS: endpoint.host,
        semconv.SERVER_PORT: endpoint.port,
        semconv.ATTEMPT: notes.attempts,
        semconv.ENDPOINT: endpoint.url,
    }
    if call.info is not None:
        attributes[semconv.GEN_AI_OPERATION_NAME] = call.info.operation.value
        attributes[semconv.GEN_AI_REQUEST_MODEL] = call.model
        attributes[semconv.GEN_AI_REQUEST_STREAM] = call.info.streaming
        sampling = call.info.sampling
        if sampling.max_tokens is not None:
            attributes[semconv.GEN_AI_REQUEST_MAX_TOKENS] = sampling.max_tokens
        if sampling.temperature is not None:
            attributes[semconv.GEN_AI_REQUEST_TEMPERATURE] = sampling.temperature
    return attributes


def _response_attributes(notes: RequestRecord, started: float) -> dict[str, AttributeValue]:
    attributes: dict[str, AttributeValue] = {}
    if notes.first_chunk:
        first = notes.first_chunk - started
        attributes[semconv.GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK] = first
    if notes.usage is not None:
        attributes[semconv.GEN_AI_USAGE_INPUT_TOKENS] = notes.usage.input_tokens
        attributes[semconv.GEN_AI_USAGE_OUTPUT_TOKENS] = notes.usage.output_tokens
        attributes[semconv.GEN_AI_RESPONSE_FINISH_REASONS] = notes.usage.finish_reasons
    return attributes


def _finish(span: Span, call: GatewayRequest, code: str, error: errors.AutoGLMError | None) -> None:
    if call.wire == "grpc":
        span.set_attribute(semconv.RPC_STATUS_CODE, code)
    else:
        span.set_attribute(semconv.HTTP_RESPONSE_STATUS_CODE, int(code))
    if error is not None:
        fail(span, error.reason)


def _fields(
    call: GatewayRequest, notes: RequestRecord, now: float, outcome: Outcome, code: str
) -> dict[str, object]:
    context = notes.span.get_span_context()
    fields: dict[str, object] = {
        "request_id": call.request_id,
        "route": call.route,
        "model": call.model[:MODEL_CHARACTERS],
        "outcome": outcome.value,
        "code": code,
        "seconds": round(now - call.started, 6),
        "attempts": notes.attempts,
        "endpoint": notes.endpoint,
        "why": notes.why,
    }
    if notes.principal is not None:
        fields["tenant"] = notes.principal.tenant
        fields["subject"] = notes.principal.subject
    if context.is_valid:
        fields["trace_id"] = trace.format_trace_id(context.trace_id)
    if notes.queued:
        fields["queue_seconds"] = round(notes.queued, 6)
    if notes.first_chunk:
        fields["first_chunk_seconds"] = round(notes.first_chunk - call.started, 6)
    if notes.recoveries:
        fields["recoveries"] = notes.recoveries
    if notes.usage is not None:
        fields["input_tokens"] = notes.usage.input_tokens
        fields["output_tokens"] = notes.usage.output_tokens
    return fields


def note_decision(span: Span, notes: RequestRecord) -> None:
    if span is not notes.span:
        span.set_attribute(semconv.ENDPOINT, notes.endpoint)
        span.set_attribute(semconv.DECISION, notes.why)
        span.set_attribute(semconv.ATTEMPT, notes.attempts)


def note_wait(span: Span, notes: RequestRecord) -> None:
    if span is not notes.span:
        span.set_attribute(semconv.QUEUE_SECONDS, notes.queued)


def note_recovery(notes: RequestRecord, broken: str) -> None:
    """The stream that `broken` began goes on on the endpoint that the notes name."""
    notes.span.add_event("autoglm.stream.recovered", {semconv.ENDPOINT: notes.endpoint})
    _log.info(
        "a stream goes on on another pod",
        extra={"fields": {"broken": broken, "endpoint": notes.endpoint}},
    )
