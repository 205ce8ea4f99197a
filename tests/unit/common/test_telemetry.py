import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.context import Context
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import Tracer

from autoglm.common.telemetry import (
    FileSpanExporter,
    JsonFormatter,
    LineHandler,
    NewTraces,
    RecordLogger,
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


class GivenIds(IdGenerator):
    def __init__(self, trace_id: int, span_id: int) -> None:
        self._trace_id, self._span_id = trace_id, span_id

    def generate_trace_id(self) -> int:
        return self._trace_id

    def generate_span_id(self) -> int:
        return self._span_id

    def is_trace_id_random(self) -> bool:
        return True


def tracer_of(ids: IdGenerator, sampler: TraceIdRatioBased) -> Tracer:
    provider = TracerProvider(
        sampler=ParentBased(sampler), id_generator=ids, shutdown_on_exit=False
    )
    return provider.get_tracer("test")


@pytest.mark.parametrize("ratio", [0.0, 0.01, 0.5, 1.0])
def test_new_traces_are_those_of_the_sdk(ratio: float) -> None:
    sampler = TraceIdRatioBased(ratio)
    ids = NewTraces(sampler)
    tracer, sampled = tracer_of(ids, sampler), 0
    for _ in range(200):
        span = ids.unsampled() or tracer.start_span("x", context=Context())
        sampled += span.is_recording()
        context = span.get_span_context()
        given = GivenIds(context.trace_id, context.span_id)
        other = tracer_of(given, sampler).start_span("x", context=Context())
        assert (type(span), context) == (type(other), other.get_span_context())
    assert abs(sampled - 200 * ratio) < 60


def test_a_trace_that_the_tracer_begins_has_an_id_of_its_own() -> None:
    sampler = TraceIdRatioBased(1.0)
    ids = NewTraces(sampler)
    assert ids.unsampled() is None
    tracer = tracer_of(ids, sampler)
    spans = [tracer.start_span("x", context=Context()) for _ in range(3)]
    assert len({span.get_span_context().trace_id for span in spans}) == 3


def test_log_lines_are_json_with_their_fields_and_trace() -> None:
    record = logging.LogRecord("autoglm.x", logging.INFO, __file__, 1, "hello %s", ("you",), None)
    record.fields = {"request_id": "r1"}
    provider = TracerProvider()
    with provider.get_tracer("test").start_as_current_span("s") as span:
        entry = json.loads(JsonFormatter().format(record))
    assert entry["message"] == "hello you"
    assert (entry["request_id"], entry["level"]) == ("r1", "info")
    assert entry["trace_id"] == f"{span.get_span_context().trace_id:032x}"


def test_a_records_own_trace_replaces_that_of_the_current_span() -> None:
    provider = TracerProvider()
    with provider.get_tracer("test").start_as_current_span("s"):
        for own, shown in (("abc", "abc"), ("", None)):
            record = record_of("x")
            record.trace_id = own
            assert json.loads(JsonFormatter().format(record)).get("trace_id") == shown


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), VALUES, max_size=5))
def test_json_lines_keep_the_values_and_order_of_fields(fields: dict[str, object]) -> None:
    record = record_of("x")
    record.fields = fields
    line = JsonFormatter().format(record)
    entry = json.loads(line)
    assert line.isascii() and line.isprintable()
    assert {name: entry[name] for name in fields} == fields
    own = [name for name in entry if name not in fields]
    assert list(entry) == list(dict.fromkeys(["time", "level", "logger", "message", *fields]))
    assert own == [n for n in ("time", "level", "logger", "message") if n not in fields]


def test_json_lines_show_values_of_other_types_as_text() -> None:
    record = record_of("x", error=ValueError("no"), path=Path("/a"))
    entry = json.loads(JsonFormatter().format(record))
    assert (entry["error"], entry["path"]) == ("no", "/a")


@pytest.mark.parametrize("created", [1_700_000_000.0, 1_700_000_000.999, 1_700_000_001.25])
def test_json_lines_have_the_records_time(created: float) -> None:
    record, form = record_of("x"), JsonFormatter()
    for record.created in (0.0, created):
        record.msecs = record.created % 1.0 * 1000.0
        entry = json.loads(form.format(record))
    shown = datetime.fromisoformat(entry["time"]).timestamp()
    assert created - 0.001 < shown <= created


def test_records_with_fields_have_the_attributes_of_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    logger = logging.getLogger("autoglm.test")
    with caplog.at_level(logging.DEBUG, logger.name):
        logger.info("100%", extra={"fields": {"a": 1}, "trace_id": ""})
        RecordLogger(logger).log(logging.INFO, "100%", {"a": 1})
    other, own = caplog.records
    assert own.__dict__.keys() == other.__dict__.keys()
    same = ("name", "levelname", "levelno", "msg", "message", "args", "fields", "trace_id")
    assert all(own.__dict__[name] == other.__dict__[name] for name in same)
    assert 0 <= own.created - other.created < 60
    assert abs(own.relativeCreated - other.relativeCreated) < 60_000
    assert own.msecs == pytest.approx(own.created % 1.0 * 1000.0)


def test_a_line_is_written_without_a_flush(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("w", buffering=1) as stream:
        handler = LineHandler(stream)
        handler.setFormatter(JsonFormatter())
        handler.handle(record_of("one"))
        assert json.loads(path.read_text())["message"].endswith("one")
        handler.addFilter(lambda record: False)
        handler.handle(record_of("filtered"))
        assert "filtered" not in path.read_text()


def test_a_closed_stream_fails_no_caller(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stream = (tmp_path / "log").open("w")
    handler = LineHandler(stream)
    handler.setFormatter(JsonFormatter())
    stream.close()
    handler.handle(record_of("lost"))
    assert "Logging error" in capsys.readouterr().err


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


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_line_survives_the_process_whether_standard_error_is_buffered(unbuffered: str) -> None:
    program = (
        "import logging, os\n"
        "from autoglm.common.telemetry import set_up_logs\n"
        "set_up_logs('info', 'json')\n"
        "logging.getLogger('autoglm.x').info('last words')\n"
        "os._exit(0)\n"
    )
    environment = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    command = [sys.executable, "-c", program]
    ended = subprocess.run(command, env=environment, stderr=subprocess.PIPE, check=True, timeout=60)
    assert json.loads(ended.stderr)["message"] == "last words"
