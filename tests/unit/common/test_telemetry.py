import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from autoglm.common.telemetry import (
    FileSpanExporter,
    JsonFormatter,
    set_up_logs,
    set_up_traces,
)


def test_spans_are_appended_to_the_file_as_lines(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "spans.jsonl"
    for name in ("one", "two"):
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(FileSpanExporter(path)))
        with provider.get_tracer("test").start_as_current_span(name):
            pass
        provider.shutdown()
    assert [json.loads(line)["name"] for line in path.read_text().splitlines()] == ["one", "two"]


@pytest.mark.parametrize("spec", ["", "file:", "otlp:", "jaeger:http://x"])
def test_a_bad_destination_is_told(spec: str) -> None:
    with pytest.raises(ValueError, match="none, console, file:PATH or otlp:URL"):
        set_up_traces("test", spec, 1.0)


def test_log_lines_are_json_with_their_fields_and_trace() -> None:
    record = logging.LogRecord("autoglm.x", logging.INFO, __file__, 1, "hello %s", ("you",), None)
    record.fields = {"request_id": "r1"}
    provider = TracerProvider()
    with provider.get_tracer("test").start_as_current_span("s") as span:
        entry = json.loads(JsonFormatter().format(record))
    assert entry["message"] == "hello you"
    assert (entry["request_id"], entry["level"]) == ("r1", "info")
    assert entry["trace_id"] == f"{span.get_span_context().trace_id:032x}"


@pytest.fixture
def restored_logging() -> Iterator[None]:
    root, ours = logging.getLogger(), logging.getLogger("autoglm")
    before = root.handlers[:], root.level, ours.level
    yield
    root.handlers[:], root.level, ours.level = before[0], before[1], before[2]


@pytest.mark.usefixtures("restored_logging")
def test_our_lines_survive_a_library_that_changes_the_roots_level(
    capsys: pytest.CaptureFixture[str],
) -> None:
    set_up_logs("info", "json")
    logging.getLogger().setLevel(logging.ERROR)
    logging.getLogger("autoglm.gateway").info("still here")
    assert "still here" in capsys.readouterr().err
