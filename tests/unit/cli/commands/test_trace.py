import json
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace as api
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from autoglm.cli.commands.trace import read_spans, trace_of
from autoglm.common.telemetry import FileSpanExporter

MS = 1_000_000
START = 1_700_000_000_000 * MS


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Two traces: a request through two services with one late child, and an older one."""
    path = tmp_path / "spans.jsonl"
    providers = {}
    for service in ("client", "gateway"):
        providers[service] = TracerProvider(
            resource=Resource({"service.name": service}), shutdown_on_exit=False
        )
        providers[service].add_span_processor(SimpleSpanProcessor(FileSpanExporter(path)))

    def span(
        service: str, name: str, parent: api.Span | None, begin: int, took: int, **attributes: Any
    ) -> api.Span:
        started = (
            providers[service]
            .get_tracer("test")
            .start_span(
                name,
                api.set_span_in_context(parent) if parent else None,
                start_time=START + begin * MS,
                attributes={k.replace("_", "."): v for k, v in attributes.items()},
            )
        )
        started.end(START + (begin + took) * MS)
        return started

    span("client", "older", None, -500, 1)
    root = span("client", "Chat", None, 0, 100, autoglm_request_id="r-1")
    served = span("gateway", "serve", root, 2, 90)
    span("gateway", "relay", served, 10, 70)
    span("gateway", "route", served, 5, 1, autoglm_route_why="least loaded")
    for provider in providers.values():
        provider.shutdown()
    return path


def test_the_last_trace_is_a_tree_in_order_of_time(autoglm: Any, file: Path) -> None:
    lines = autoglm("trace", str(file)).out.splitlines()
    assert lines[0].startswith("trace ")
    assert [line.rstrip() for line in lines[1:]] == [
        "└──    100.0 ms Chat  client internal  +0.0 ms",
        "    └──     90.0 ms serve  gateway internal  +2.0 ms",
        "        ├──      1.0 ms route  gateway internal  +5.0 ms  why=least loaded",
        "        └──     70.0 ms relay  gateway internal  +10.0 ms",
    ]


def test_a_trace_is_found_by_request_and_by_its_id(file: Path) -> None:
    spans = read_spans(file)
    names = {"Chat", "serve", "relay", "route"}
    assert {s.name for s in trace_of(spans, request_id="r-1")} == names
    older = next(s for s in spans if s.name == "older")
    assert trace_of(spans, trace_id=older.trace_id) == [older]
    assert trace_of(spans, request_id="unknown") == []


def test_a_line_still_being_written_is_left_out(file: Path) -> None:
    complete = len(read_spans(file))
    with file.open("a") as growing:
        growing.write(json.dumps({"name": "half"})[:8])
    assert len(read_spans(file)) == complete


def test_no_such_trace_exits_1(autoglm: Any, file: Path) -> None:
    result = autoglm("trace", str(file), "--trace-id", "0" * 32)
    assert (result.code, result.out) == (1, "")
