"""One page of several processes' metrics."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingMixIn, UnixStreamServer

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from autoglm.gateway.envoy.all_metrics import merged, of_all
from autoglm.gateway.envoy.config.names import Sockets


def registry(served: int) -> CollectorRegistry:
    made = CollectorRegistry()
    Counter("served", "Requests.", ("model",), registry=made).labels("m").inc(served)
    Gauge("open", "Open ones.", registry=made).set(served)
    Histogram("took_seconds", "How long.", buckets=(1.0,), registry=made).observe(0.5)
    return made


class _Server(ThreadingMixIn, UnixStreamServer):
    daemon_threads = True


class _Handler(BaseHTTPRequestHandler):
    def address_string(self) -> str:
        return "unix"

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(generate_latest(self.server.shown))  # type: ignore[attr-defined]


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Sockets]:
    """Process 1 shows its page at its socket; process 2 does not respond."""
    sockets = Sockets(tmp_path)
    with _Server(sockets.of(1).http, _Handler) as server:
        server.shown = registry(5)  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield sockets
        server.shutdown()


def test_each_sample_says_whose_it_is_and_families_come_once(other: Sockets) -> None:
    page = generate_latest(of_all(registry(3), other, 2)).decode()
    assert 'served_total{model="m",process="0"} 3.0' in page
    assert 'served_total{model="m",process="1"} 5.0' in page
    assert 'took_seconds_bucket{le="1.0",process="1"} 1.0' in page
    named = [line for line in page.splitlines() if line.startswith("# TYPE")]
    assert len(named) == len(set(named))
    list(text_string_to_metric_families(page))


def test_a_process_that_does_not_respond_is_left_out(other: Sockets) -> None:
    page = generate_latest(of_all(registry(3), other, 3)).decode()
    assert 'process="1"' in page and 'process="2"' not in page


def test_families_that_only_one_has_are_there() -> None:
    alone = CollectorRegistry()
    Gauge("lonely", "Of one.", registry=alone).set(1)
    found = {f.name: f for f in merged({0: registry(1).collect(), 1: alone.collect()})}
    (sample,) = found["lonely"].samples
    assert sample.labels == {"process": "1"}
