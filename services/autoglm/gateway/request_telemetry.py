"""The gateway's record of each request, and the child spans of admission, routing and attempts.

`common.request_telemetry` records it. Called by the pipeline and the proxy.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache

from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind
from opentelemetry.util.types import AttributeValue

from autoglm.common import semconv
from autoglm.common.errors import Outcome, outcome_of_status
from autoglm.common.request_telemetry import (
    Ending,
    RequestRecorder,
    RequestSeries,
    end_span,
    error_of,
    fail,
    trace_id,
)
from autoglm.common.telemetry import MODEL_CHARACTERS, tracer
from autoglm.gateway.endpoints.endpoint import Endpoint
from autoglm.gateway.request.metrics import OTHER, Metrics
from autoglm.gateway.request.request import GatewayRequest, RequestRecord

# A caller's deadline is rounded on its way to the gateway.
_DEADLINE_SLACK = 0.01
_log = logging.getLogger("autoglm.gateway.request")


class Observer:
    """Begins and ends the record of each request. `is_known` bounds the model label."""

    def __init__(
        self,
        metrics: Metrics,
        is_known: Callable[[str], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._recorder = RequestRecorder(_log, metrics.in_flight)
        self._metrics = metrics
        self._series = cache(self._new_series)
        self._is_known = is_known
        self._clock = clock

    def begin(self, request: GatewayRequest, record: RequestRecord) -> None:
        """Begin the request's span."""
        record.span = self._recorder.begin(
            request.wire, request.route, request.request_id, request.trace_headers
        )

    def end(
        self, request: GatewayRequest, record: RequestRecord, failure: BaseException | None
    ) -> None:
        """Record how the request ended: with its response's HTTP status, or with a failure."""
        request, now = record.request or request, self._clock()
        ending = _ending(request, record, failure, now)
        info = request.info
        if info is None:
            series = self._series(request.route, OTHER, ending.outcome, ending.code, None)
        else:
            model = info.model if self._is_known(info.model) else OTHER
            series = self._series(request.route, model, ending.outcome, ending.code, info.operation)
        self._recorder.count(ending, series)
        if record.span.is_recording():
            end_span(record.span, ending, _principal_attributes(record))
        log = self._recorder.log
        if log.is_enabled_for(ending.level):
            log.log(ending.level, ending.message, _fields(request, record, ending))

    def _new_series(
        self, route: str, model: str, outcome: Outcome, code: str, operation: str | None
    ) -> RequestSeries:
        metrics = self._metrics
        durations = [metrics.duration.labels(route, model, outcome)]
        first_chunks = [metrics.first_chunk.labels(route, model)]
        if operation is not None:
            error_type = "" if outcome is Outcome.SERVED else code
            durations.append(metrics.gen_ai_duration.labels(operation, model, error_type))
            first_chunks.append(metrics.gen_ai_first_token.labels(operation, model))
        requests = metrics.requests.labels(route, model, outcome, code)
        return RequestSeries(requests, tuple(durations), tuple(first_chunks))


def _ending(
    request: GatewayRequest, record: RequestRecord, failure: BaseException | None, now: float
) -> Ending:
    seconds = now - request.started
    first = record.first_chunk - request.started if record.first_chunk else None
    error = error_of(failure, overdue=now >= request.deadline - _DEADLINE_SLACK)
    if error is None:
        code = "OK" if request.wire == "grpc" else str(record.status)
        return Ending(request.wire, outcome_of_status(record.status), code, seconds, first)
    return Ending(
        request.wire,
        outcome_of_status(error.http_status),
        error.grpc_status if request.wire == "grpc" else str(error.http_status),
        seconds,
        first,
        error_type=error.reason,
        message=error.message,
    )


def child_span(record: RequestRecord, name: str) -> AbstractContextManager[Span]:
    """Open a child of the request's span; yield the request's own where nothing is recorded."""
    if not record.span.is_recording():
        return nullcontext(record.span)
    return _recorded_child(record.span, name)


@contextmanager
def _recorded_child(parent: Span, name: str) -> Iterator[Span]:
    span = tracer.start_span(name, context=trace.set_span_in_context(parent))
    try:
        yield span
    except BaseException as error:
        fail(span, getattr(error, "reason", type(error).__name__))
        raise
    finally:
        span.end()


def begin_client_span(request: GatewayRequest, record: RequestRecord, endpoint: Endpoint) -> Span:
    """Begin the GenAI span of one attempt; the request's own span where nothing is recorded."""
    if not record.span.is_recording():
        return record.span
    name = f"{request.info.operation} {request.model}" if request.info else request.route
    context = trace.set_span_in_context(record.span)
    span = tracer.start_span(name, context=context, kind=SpanKind.CLIENT)
    span.set_attributes(_client_attributes(request, record, endpoint))
    return span


def end_client_span(
    span: Span, record: RequestRecord, begun: float, error: BaseException | None
) -> None:
    """End an attempt's span at the end of its stream. `begun` is a monotonic time."""
    if span is record.span:
        return
    if error is not None:
        fail(span, getattr(error, "reason", type(error).__name__))
    span.set_attributes(_response_attributes(record, begun))
    span.end()


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
        attributes[semconv.GEN_AI_USAGE_INPUT_TOKENS] = record.usage.prompt_tokens
        attributes[semconv.GEN_AI_USAGE_OUTPUT_TOKENS] = record.usage.completion_tokens
        attributes[semconv.GEN_AI_RESPONSE_FINISH_REASONS] = record.usage.finish_reasons
    return attributes


def _fields(request: GatewayRequest, record: RequestRecord, ending: Ending) -> dict[str, object]:
    fields: dict[str, object] = {
        "request_id": request.request_id,
        "route": request.route,
        "model": request.info.model[:MODEL_CHARACTERS] if request.info is not None else "",
        "outcome": ending.outcome,
        "code": ending.code,
        "seconds": round(ending.seconds, 6),
        "attempts": record.attempts,
        "endpoint": record.endpoint,
        "why": record.why,
    }
    if record.principal is not None:
        fields["tenant"] = record.principal.tenant
        fields["subject"] = record.principal.subject
    if name := trace_id(record.span):
        fields["trace_id"] = name
    if record.queued:
        fields["queue_seconds"] = round(record.queued, 6)
    if ending.first_chunk_seconds is not None:
        fields["first_chunk_seconds"] = round(ending.first_chunk_seconds, 6)
    if record.recoveries:
        fields["recoveries"] = record.recoveries
    if record.usage is not None:
        fields["input_tokens"] = record.usage.prompt_tokens
        fields["output_tokens"] = record.usage.completion_tokens
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
    """Record that the record's endpoint has resumed the stream of the endpoint `broken`."""
    record.span.add_event("autoglm.stream.recovered", {semconv.ENDPOINT: record.endpoint})
    _log.info(
        "stream resumed on another pod",
        extra={"fields": {"broken": broken, "endpoint": record.endpoint}},
    )
