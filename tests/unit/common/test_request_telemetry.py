"""One request is one span, one count in each metric and one log line, in gateway and pod alike."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import (
    INVALID_SPAN,
    NonRecordingSpan,
    Span,
    SpanContext,
    StatusCode,
    TraceFlags,
    TraceState,
    get_current_span,
    set_span_in_context,
)
from opentelemetry.util.types import AttributeValue
from prometheus_client import CollectorRegistry, Gauge

from autoglm.common import errors, request_telemetry
from autoglm.common.errors import Outcome
from autoglm.common.metrics import CounterFamily, HistogramFamily
from autoglm.common.request_telemetry import (
    Ending,
    Protocol,
    RequestRecorder,
    RequestSeries,
    end_span,
    error_of,
    parent_of,
    trace_headers,
)
from autoglm.common.telemetry import PROPAGATOR

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
LOG = logging.getLogger("autoglm.test.request")


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(request_telemetry, "tracer", provider.get_tracer("test"))
    yield exporter
    provider.shutdown()


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def recorder(registry: CollectorRegistry) -> RequestRecorder:
    return RequestRecorder(LOG, Gauge("in_flight", "", registry=registry))


@pytest.fixture
def series(registry: CollectorRegistry) -> RequestSeries:
    def histogram(name: str) -> HistogramFamily:
        return HistogramFamily(name, "", ("method",), buckets=(1.0,), registry=registry)

    requests = CounterFamily("requests", "", ("method", "outcome"), registry=registry)
    return RequestSeries(
        requests.labels("m", Outcome.SERVED),
        (histogram("duration").labels("m"), histogram("other_duration").labels("m")),
        (histogram("first").labels("m"),),
    )


def ending(protocol: Protocol, outcome: Outcome, code: str, **more: object) -> Ending:
    return Ending(protocol, outcome, code, 2.0, **more)  # type: ignore[arg-type]


def finish(span: Span, ended: Ending, attributes: Mapping[str, AttributeValue]) -> None:
    assert span.is_recording()
    end_span(span, ended, attributes)


def the_span(spans: InMemorySpanExporter) -> ReadableSpan:
    (span,) = spans.get_finished_spans()
    return span


def test_a_served_request_is_one_span_of_its_callers_trace(
    recorder: RequestRecorder, spans: InMemorySpanExporter
) -> None:
    span = recorder.begin("http", "POST /v1/completions", "r1", {"traceparent": PARENT})
    finish(span, ending("http", Outcome.SERVED, "200"), {"mine": 1})
    seen = the_span(spans)
    assert seen.name == "POST /v1/completions" and seen.parent is not None
    assert f"{seen.parent.trace_id:032x}" in PARENT and seen.status.status_code is StatusCode.UNSET
    assert dict(seen.attributes or {}) == {
        "http.request.method": "POST",
        "http.route": "/v1/completions",
        "autoglm.request.id": "r1",
        "mine": 1,
        "http.response.status_code": 200,
    }


def test_a_failed_request_has_its_error_on_the_span(
    recorder: RequestRecorder, spans: InMemorySpanExporter
) -> None:
    span = recorder.begin("grpc", "a.B/C", "r1", {})
    failed = ending("grpc", Outcome.FAILED, "INTERNAL", error_type="INTERNAL_ERROR")
    finish(span, failed, {})
    seen = the_span(spans)
    assert dict(seen.attributes or {}) == {
        "rpc.system.name": "grpc",
        "rpc.method": "a.B/C",
        "autoglm.request.id": "r1",
        "rpc.status_code": "INTERNAL",
        "error.type": "INTERNAL_ERROR",
    }
    assert seen.status.status_code is StatusCode.ERROR
    assert seen.status.description == "INTERNAL_ERROR"


def test_each_request_is_counted_once(
    recorder: RequestRecorder, registry: CollectorRegistry, series: RequestSeries
) -> None:
    for first in (None, 0.5):
        recorder.begin("grpc", "m", "r", {})
        assert registry.get_sample_value("in_flight") == 1
        ended = ending("grpc", Outcome.SERVED, "OK", first_chunk_seconds=first)
        recorder.count(ended, series)
    values = {
        "in_flight": registry.get_sample_value("in_flight"),
        "requests": registry.get_sample_value(
            "requests_total", {"method": "m", "outcome": "served"}
        ),
        "duration": registry.get_sample_value("duration_sum", {"method": "m"}),
        "other": registry.get_sample_value("other_duration_count", {"method": "m"}),
        "first": registry.get_sample_value("first_count", {"method": "m"}),
    }
    assert values == {"in_flight": 0, "requests": 2, "duration": 4.0, "other": 2, "first": 1}


@pytest.mark.parametrize(("level", "lines"), [(logging.INFO, 1), (logging.DEBUG, 0)])
def test_a_request_is_one_log_line_at_its_level(
    recorder: RequestRecorder, caplog: pytest.LogCaptureFixture, level: int, lines: int
) -> None:
    with caplog.at_level(logging.INFO, LOG.name):
        ended = ending("grpc", Outcome.SERVED, "OK", level=level, message="done well")
        if recorder.log.is_enabled_for(ended.level):
            recorder.log.log(ended.level, ended.message, {"request_id": "r"})
    assert len(caplog.records) == lines
    for record in caplog.records:
        assert (record.message, record.__dict__["fields"]) == ("done well", {"request_id": "r"})


@pytest.mark.parametrize(
    ("failure", "overdue", "kind"),
    [
        (errors.QueueFull("x"), False, errors.QueueFull),
        (asyncio.CancelledError(), False, errors.Cancelled),
        (GeneratorExit(), True, errors.DeadlineExceeded),
        (TimeoutError(), False, errors.DeadlineExceeded),
        (ValueError("x"), False, errors.Internal),
    ],
)
def test_every_failure_is_an_error_of_the_api(
    failure: BaseException, overdue: bool, kind: type[errors.AutoGLMError]
) -> None:
    assert type(error_of(failure, overdue=overdue)) is kind
    assert error_of(None) is None


@given(
    st.integers(1, 2**128 - 1),
    st.integers(1, 2**64 - 1),
    st.integers(0, 255),
    st.dictionaries(st.from_regex(r"[a-z]{1,8}", fullmatch=True), st.just("v"), max_size=3),
)
def test_trace_headers_are_those_of_the_propagator(
    trace_id: int, span_id: int, flags: int, state: dict[str, str]
) -> None:
    state_of = TraceState(list(state.items()))
    context = SpanContext(trace_id, span_id, False, TraceFlags(flags), state_of)
    span, injected = NonRecordingSpan(context), dict[str, str]()
    PROPAGATOR.inject(injected, set_span_in_context(span))
    assert trace_headers(span) == injected
    assert trace_headers(INVALID_SPAN) == {}


@given(
    st.one_of(
        st.from_regex(
            r"[ ]?(00|01|ff)-(0{32}|[0-9a-f]{32})-(0{16}|[0-9a-f]{16})-[0-9a-fA-F]{2}(-x)?[ \n]?",
            fullmatch=True,
        ),
        st.text(max_size=60),
    ),
    st.sampled_from([{}, {"tracestate": "a=b"}, {"tracestate": "no"}]),
)
def test_a_callers_span_is_the_one_that_the_propagator_extracts(
    header: str, state: dict[str, str]
) -> None:
    for carrier in ({"traceparent": header, **state}, state):
        found, expected = (
            get_current_span(context).get_span_context()
            for context in (parent_of(carrier), PROPAGATOR.extract(carrier))
        )
        assert found == expected and found.trace_state == expected.trace_state
