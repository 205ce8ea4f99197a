"""Traces and logs of a process. Called once by each service's `app.py`.

Spans go where `--traces` says; `file:PATH` appends one JSON object a span, which the demo reads.
Prompts and outputs are never recorded.
"""

from __future__ import annotations

import atexit
import json
import logging
import sys
import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, TextIO

import msgspec
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import (
    BatchSpanProcessor,
    ConsoleSpanExporter,
    SpanExporter,
    SpanExportResult,
)
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased, TraceIdRatioBased
from opentelemetry.trace import NonRecordingSpan, Span, SpanContext
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

PROPAGATOR = TraceContextTextMapPropagator()
tracer = trace.get_tracer("autoglm")
_EXPORT_DELAY_MS = 500
_new_traces: NewTraces | None = None
_encoder = msgspec.json.Encoder(enc_hook=str)
# So much of a model's name that a caller has sent is recorded.
MODEL_CHARACTERS = 256


class FileSpanExporter(SpanExporter):
    """Appends spans to a file, one JSON object a line; safe for several processes."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Unbuffered, so that a batch is one write and lines of several processes never mix.
        self._file = path.open("ab", buffering=0)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self._file.write("".join(s.to_json(indent=None) + "\n" for s in spans).encode())
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        self._file.close()


def set_up_traces(service_name: str, spec: str, sample_ratio: float) -> None:
    """Install the process's tracer provider. `spec` as in ServiceSettings.traces."""
    exporter = _exporter(spec)
    if exporter is None:
        return
    global _new_traces
    sampler = TraceIdRatioBased(sample_ratio)
    new_traces = NewTraces(sampler)
    provider = TracerProvider(
        resource=Resource.create({"service.name": service_name}),
        sampler=ParentBased(sampler),
        id_generator=new_traces,
    )
    provider.add_span_processor(
        BatchSpanProcessor(exporter, schedule_delay_millis=_EXPORT_DELAY_MS)
    )
    trace.set_tracer_provider(provider)
    atexit.register(provider.shutdown)
    if trace.get_tracer_provider() is provider:
        _new_traces = new_traces


class NewTraces(RandomIdGenerator):
    """Decides on new traces as the SDK's tracer does, at a third of its cost for unsampled ones."""

    def __init__(self, sampler: TraceIdRatioBased) -> None:
        self._bound = sampler.bound
        self._sampled_id = 0
        provider = TracerProvider(sampler=ALWAYS_OFF, id_generator=self, shutdown_on_exit=False)
        unsampled = provider.get_tracer("autoglm").start_span("", context=Context())
        self._flags = unsampled.get_span_context().trace_flags

    def unsampled(self) -> Span | None:
        """Return the span of a new trace that is not sampled; None if the next one is sampled."""
        trace_id = super().generate_trace_id()
        if trace_id & TraceIdRatioBased.TRACE_ID_LIMIT < self._bound:
            self._sampled_id = trace_id
            return None
        span_id = self.generate_span_id()
        return NonRecordingSpan(SpanContext(trace_id, span_id, False, self._flags))

    def generate_trace_id(self) -> int:
        """Return the id of the sampled trace for the SDK's tracer, which decides the same."""
        sampled, self._sampled_id = self._sampled_id, 0
        return sampled or super().generate_trace_id()


def unsampled_span() -> Span | None:
    """Return the span of a new trace that is not sampled; None if the tracer is to begin it."""
    return None if _new_traces is None else _new_traces.unsampled()


def _exporter(spec: str) -> SpanExporter | None:
    kind, _, target = spec.partition(":")
    if kind == "none":
        return None
    if kind == "console":
        return ConsoleSpanExporter(formatter=lambda s: s.to_json(indent=None) + "\n")
    if kind == "file" and target:
        return FileSpanExporter(Path(target))
    if kind == "otlp" and target:
        # Imported here, since few processes use it.
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

        return OTLPSpanExporter(endpoint=target, insecure=not target.startswith("https"))
    raise ValueError(f"--traces {spec!r} is not none, console, file:PATH or otlp:URL")


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, trace id, and the record's `fields`.

    Without a record's own `trace_id`, which may be empty, it is that of the current span.
    """

    def __init__(self) -> None:
        super().__init__()
        self._second, self._date = 0, ""

    def format(self, record: logging.LogRecord) -> str:
        attributes, second = record.__dict__, int(record.created)
        if second != self._second:
            self._date = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
            self._second = second
        entry: dict[str, object] = {
            "time": f"{self._date}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage() if record.args else str(record.msg),
        }
        trace_id = attributes.get("trace_id")
        if trace_id is None:
            span = trace.get_current_span().get_span_context()
            trace_id = trace.format_trace_id(span.trace_id) if span.is_valid else ""
        if trace_id:
            entry["trace_id"] = trace_id
        fields = attributes.get("fields")
        if isinstance(fields, Mapping):
            entry |= fields
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return _json(entry)


def _json(entry: Mapping[str, object]) -> str:
    """Return the JSON of an entry in printable ASCII."""
    try:
        text = _encoder.encode(entry).decode()
    except UnicodeEncodeError:  # a surrogate
        text = ""
    if text and text.isascii() and text.isprintable():
        return text
    return json.dumps(entry, default=str, separators=(",", ":"))


class RecordLogger:
    """Logs a message with fields to a logger, at a fraction of the cost of `Logger.log`.

    The records have no caller (no file, function and line), and the trace id of their fields.
    """

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self.is_enabled_for = logger.isEnabledFor
        self._attributes = cache(self._attributes_of)
        sample = logging.makeLogRecord({})
        self._loaded = sample.created - sample.relativeCreated / 1000.0

    def log(self, level: int, message: str, fields: Mapping[str, object]) -> None:
        """Log at a level that is enabled."""
        now = time.time()
        record = logging.LogRecord.__new__(logging.LogRecord)
        record.__dict__.update(
            self._attributes(level),
            msg=message,
            created=now,
            msecs=now % 1.0 * 1000.0,
            relativeCreated=(now - self._loaded) * 1000.0,
            fields=fields,
        )
        self._logger.handle(record)

    def _attributes_of(self, level: int) -> dict[str, object]:
        name = self._logger.name
        return logging.LogRecord(name, level, "", 0, "", (), None).__dict__ | {"trace_id": ""}


class LineHandler(logging.StreamHandler[TextIO]):
    """Writes each record at once to a stream that needs no flush, as standard error needs none."""

    def handle(self, record: logging.LogRecord) -> bool:
        if self.filters and not self.filter(record):
            return False
        assert self.lock and self.formatter
        with self.lock:
            try:
                self.stream.write(self.formatter.format(record) + "\n")
            except Exception:
                self.handleError(record)
        return True


def printable(text: str) -> str:
    """Return the text on one line, with line breaks, ANSI escapes, U+2028 and the like escaped."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text)


def _quoted(value: object) -> str:
    """Return a field's value, in double quotes if it could pass for more than one field."""
    text = str(value)
    if text.isprintable() and " " not in text and '"' not in text:
        return text
    return printable(json.dumps(text, ensure_ascii=False))


class TextFormatter(logging.Formatter):
    """For a terminal: the record's `fields` follow the message as NAME=VALUE.

    Whatever a caller sends, a record is one line, and each line of its traceback is indented: no
    value can pass for a record or for a field of its own.
    """

    def format(self, record: logging.LogRecord) -> str:
        message, fields = printable(record.getMessage()), getattr(record, "fields", None)
        if isinstance(fields, Mapping):
            message = " ".join([message, *(f"{k}={_quoted(v)}" for k, v in fields.items())])
        record.message_and_fields = message
        return super().format(record)

    def formatException(self, ei: Any) -> str:  # the base class names it
        return _indented(super().formatException(ei))

    def formatStack(self, stack_info: str) -> str:  # the base class names it
        return _indented(stack_info)


def _indented(text: str) -> str:
    return "\n".join("    " + printable(line) for line in text.split("\n"))


def set_up_logs(level: str, log_format: str) -> None:
    """Log to standard error."""
    handler = LineHandler(sys.stderr)
    text = TextFormatter("%(asctime)s %(levelname)s %(name)s: %(message_and_fields)s")
    handler.setFormatter(JsonFormatter() if log_format == "json" else text)
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # Libraries change the root's level (vLLM's do); ours must not follow it.
    logging.getLogger("autoglm").setLevel(level.upper())
