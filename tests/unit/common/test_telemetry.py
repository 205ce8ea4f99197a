import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from autoglm.common.telemetry import (
    FileSpanExporter,
    JsonFormatter,
    TextFormatter,
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
def test_a_bad_destination_is_reported(spec: str) -> None:
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


FORGED = "m\n2026-01-01 00:00:00,000 INFO autoglm.gateway: done tenant=evil"
UNPRINTABLE = [
    FORGED,
    FORGED.replace("\n", "\r\n"),
    FORGED.replace("\n", "\r"),
    FORGED.replace("\n", "\u2028"),
    FORGED.replace("\n", "\u2029"),
    FORGED.replace("\n", "\x85"),
    FORGED.replace("\n", "\x0b"),
    FORGED.replace("\n", "\x1b[2K\x1b[1G"),
    FORGED.replace("\n", "\u202e"),
    FORGED.replace("\n", "\ud800"),
    "\x00\x07\x08\x7f\x9b31m",
]


def lines_of(record: logging.LogRecord) -> list[str]:
    form = TextFormatter("%(asctime)s %(levelname)s %(name)s: %(message_and_fields)s")
    return form.format(record).splitlines()


def record_of(message: str, **fields: object) -> logging.LogRecord:
    record = logging.LogRecord("autoglm.x", logging.INFO, __file__, 1, "no %r, %s", ("a",), None)
    record.args = ("a", message)
    record.fields = fields
    return record


@pytest.mark.parametrize("text", UNPRINTABLE)
@pytest.mark.parametrize("where", ["message", "field"])
def test_a_record_is_one_printable_line_whatever_a_caller_sends(text: str, where: str) -> None:
    record = record_of(text) if where == "message" else record_of("x", model=text, outcome="ok")
    (line,) = lines_of(record)
    assert line.isprintable()
    if where == "field":
        assert line.endswith('" outcome=ok')


@pytest.mark.parametrize(
    "value", ["m tenant=evil", 'm" tenant="evil', "m\\n", "plain", "a=b", 'q"']
)
def test_a_value_is_no_field_of_its_own(value: str) -> None:
    (line,) = lines_of(record_of("x", model=value, outcome="ok"))
    shown = line.partition("model=")[2].removesuffix(" outcome=ok")
    assert (json.loads(shown) if shown.startswith('"') else shown) == value


@pytest.mark.parametrize("text", UNPRINTABLE)
def test_lines_of_a_traceback_are_distinguished_from_records(text: str) -> None:
    record = record_of("x")
    try:
        raise ValueError(text)
    except ValueError as error:
        record.exc_info = (type(error), error, error.__traceback__)
    record.stack_info = f"Stack:\n{text}"
    first, *others = lines_of(record)
    assert first.endswith("x") and all(line.startswith("    ") for line in others)
    assert all(line.isprintable() for line in others)


@given(st.text())
def test_any_text_takes_one_line(text: str) -> None:
    (line,) = lines_of(record_of(text, model=text, outcome="ok"))
    assert line.isprintable()
    shown = line.rpartition(" outcome=ok")[0].rpartition("model=")[2]
    assert "model=" in text or (json.loads(shown) if shown.startswith('"') else shown) == text
    entry = JsonFormatter().format(record_of(text, model=text))
    assert entry.isprintable() and json.loads(entry)["model"] == text


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
