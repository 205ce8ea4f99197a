"""One request is one trace, from the gateway's edge to vLLM's own span."""

import json
import time
import urllib.request
import uuid
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, use_span
from tests.support.processes import Process

from autoglm.client import Client

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(400)]
PARENT_SPAN = "b7ad6b7169203331"
SECRET = "What is token replay?"


def spans_of(file: Path, trace_id: str, until: str) -> list[dict[str, Any]]:
    """The trace's spans, once the span called `until` is among them and all have arrived."""
    end = time.monotonic() + 20
    found: list[dict[str, Any]] = []
    while time.monotonic() < end:
        lines = file.read_text().splitlines() if file.exists() else []
        spans = [json.loads(line) for line in lines]
        fresh = [s for s in spans if s["context"]["trace_id"] == f"0x{trace_id}"]
        if any(s["name"] == until for s in fresh) and len(fresh) == len(found):
            return found
        found = fresh
        time.sleep(1.0)
    raise AssertionError(f"no span {until!r} among {[s['name'] for s in found]}")


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
    found = spans_of(spans, trace_id, "llm_request")
    assert path_to_root(found, "llm_request") == [
        "autoglm-inference SERVER",
        "autoglm-inference SERVER",
        "autoglm-gateway CLIENT",
        "autoglm-gateway SERVER",
    ]
    roots = {s["parent_id"] for s in found} - {s["context"]["span_id"] for s in found}
    # Where this process has an OpenTelemetry SDK, the client's own span stands between.
    assert len(roots) == 1
    assert {"admission", "route"} <= {s["name"] for s in found}
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
