"""One request is one trace, from the gateway's edge to vLLM's own span."""

import json
import urllib.request
import uuid
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, use_span
from tests.support.processes import Process, eventually

from autoglm.client import Client

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]
PARENT_SPAN = "b7ad6b7169203331"
SECRET = "What is token replay?"


# From vLLM's own span up. Each process exports its spans when it wishes.
WAY = [
    "autoglm-inference SERVER",
    "autoglm-inference SERVER",
    "autoglm-gateway CLIENT",
    "autoglm-gateway SERVER",
]
PARTS = {"admission", "route", "llm_request"}


def spans_of(file: Path, trace_id: str) -> list[dict[str, Any]]:
    """The trace's spans, as far as they have arrived."""
    lines = file.read_text().splitlines(keepends=True) if file.exists() else []
    spans = [json.loads(line) for line in lines if line.endswith("\n")]
    return [s for s in spans if s["context"]["trace_id"] == f"0x{trace_id}"]


def has_every_hop(spans: list[dict[str, Any]]) -> bool:
    found = {s["name"] for s in spans}
    return found >= PARTS and path_to_root(spans, "llm_request") == WAY


def roots(spans: list[dict[str, Any]]) -> set[str]:
    return {s["parent_id"] for s in spans} - {s["context"]["span_id"] for s in spans}


def path_to_root(spans: list[dict[str, Any]], name: str) -> list[str]:
    """Kinds of the spans from the one called `name` up, the root last."""
    by_id = {s["context"]["span_id"]: s for s in spans}
    span: dict[str, Any] | None = next(s for s in spans if s["name"] == name)
    kinds = []
    while span is not None:
        kinds.append(f"{span['resource']['attributes']['service.name']} {span['kind'][9:]}")
        span = by_id.get(span["parent_id"])
    return kinds


@pytest.mark.parametrize("kind", ["grpc chat", "grpc generate", "rest"])
def test_every_hop_is_in_the_callers_trace(gateway: Process, spans: Path, kind: str) -> None:
    trace_id = uuid.uuid4().hex
    send_request(gateway, kind, trace_id)
    eventually(lambda: has_every_hop(spans_of(spans, trace_id)), what=f"{PARTS} and {WAY}")
    # Where this process has an OpenTelemetry SDK, the client's own span stands between.
    eventually(lambda: len(roots(spans_of(spans, trace_id))) == 1, what="one root")
    found = spans_of(spans, trace_id)
    assert SECRET not in json.dumps(found)


def send_request(gateway: Process, kind: str, trace_id: str) -> None:
    if kind == "rest":
        body = {"model": "tiny-glm", "messages": [{"role": "user", "content": SECRET}]}
        request = urllib.request.Request(
            f"http://{gateway.http_address}/v1/chat/completions",
            json.dumps(body).encode(),
            {
                "content-type": "application/json",
                "traceparent": f"00-{trace_id}-{PARENT_SPAN}-01",
            },
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            answer.read()
        return
    parent = SpanContext(int(trace_id, 16), int(PARENT_SPAN, 16), True, TraceFlags(1))
    with use_span(NonRecordingSpan(parent)), Client(gateway.grpc_address) as client:
        if kind == "grpc chat":
            client.chat(SECRET, model="tiny-glm")
        else:
            client.generate(SECRET, model="tiny-glm")
