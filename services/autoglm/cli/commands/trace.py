"""`autoglm trace`: shows the spans of one request as a tree, from a file of `--traces file:PATH`.

Spans whose parent is not in the file are at the top level. Also called by the demo.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.text import Text
from rich.tree import Tree

from autoglm.cli.options import examples
from autoglm.common import semconv

_SHOWN = (
    semconv.DECISION,
    semconv.ENDPOINT,
    semconv.ERROR_TYPE,
    semconv.GEN_AI_USAGE_INPUT_TOKENS,
    semconv.GEN_AI_USAGE_OUTPUT_TOKENS,
)
_WIDTH = 240


@dataclass(frozen=True, slots=True)
class Span:
    """A finished span; times in seconds since the epoch."""

    trace_id: str
    span_id: str
    parent_id: str
    name: str
    kind: str
    service: str
    start: float
    end: float
    attributes: Mapping[str, Any]


def read_spans(path: Path) -> list[Span]:
    """Return all spans of the file, without an incomplete last line."""
    whole, _, _ = path.read_text(encoding="utf-8").rpartition("\n")
    return [
        Span(
            trace_id=entry["context"]["trace_id"].removeprefix("0x"),
            span_id=entry["context"]["span_id"].removeprefix("0x"),
            parent_id=(entry["parent_id"] or "").removeprefix("0x"),
            name=entry["name"],
            kind=entry["kind"].removeprefix("SpanKind."),
            service=entry["resource"]["attributes"].get("service.name", ""),
            start=datetime.fromisoformat(entry["start_time"]).timestamp(),
            end=datetime.fromisoformat(entry["end_time"]).timestamp(),
            attributes=entry["attributes"] or {},
        )
        for entry in map(json.loads, filter(None, whole.splitlines()))
    ]


def trace_of(spans: Sequence[Span], request_id: str = "", trace_id: str = "") -> list[Span]:
    """Return the spans of one trace: by request id, by trace id, or of the latest trace."""
    if request_id:
        found = [s for s in spans if s.attributes.get(semconv.REQUEST_ID) == request_id]
    elif trace_id:
        found = [s for s in spans if s.trace_id == trace_id]
    else:
        found = sorted(spans, key=lambda s: s.start)[-1:]
    return [s for s in spans if found and s.trace_id == found[0].trace_id]


def tree(trace: Sequence[Span]) -> Tree:
    """Return a tree of the spans in order of their start, with duration and start."""
    known = {s.span_id for s in trace}
    children: dict[str, list[Span]] = defaultdict(list)
    for span in sorted(trace, key=lambda s: s.start):
        children[span.parent_id if span.parent_id in known else ""].append(span)
    begin = min((s.start for s in trace), default=0.0)
    top = Tree(Text(f"trace {trace[0].trace_id}" if trace else "no such trace", style="bold"))
    _grow(top, "", children, begin)
    return top


def show(trace: Sequence[Span]) -> None:
    """Print the tree without truncating lines."""
    Console(width=_WIDTH, highlight=False).print(tree(trace))


def _grow(node: Tree, parent: str, children: Mapping[str, Sequence[Span]], begin: float) -> None:
    for span in children.get(parent, ()):
        shown = [name for name in _SHOWN if name in span.attributes]
        details = [f"{name.rpartition('.')[2]}={span.attributes[name]}" for name in shown]
        label = Text.assemble(
            (f"{1e3 * (span.end - span.start):8.1f} ms ", "cyan"),
            (span.name, "bold"),
            f"  {span.service} {span.kind.lower()}",
            (f"  +{1e3 * (span.start - begin):.1f} ms", "dim"),
            (f"  {' '.join(details)}" if details else "", "green"),
        )
        _grow(node.add(label), span.span_id, children, begin)


@click.command(
    epilog=examples(
        "autoglm trace build/spans.jsonl",
        "autoglm trace build/spans.jsonl --request-id 4bf92f3577b34da6a3ce929d0e0e4736",
    )
)
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--request-id", default="", help="Show the trace of this request.")
@click.option("--trace-id", default="", help="Show this trace.")
def command(file: Path, request_id: str, trace_id: str) -> int:
    """Show the spans of one request in FILE as a tree, with their durations.

    FILE is written by `--traces file:PATH`. Without an id, show the latest trace.
    """
    trace = trace_of(read_spans(file), request_id, trace_id)
    if not trace:
        click.echo(f"{file} has no such trace", err=True)
        return 1
    show(trace)
    return 0
