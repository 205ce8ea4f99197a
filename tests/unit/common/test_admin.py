import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry, Counter

from autoglm.common.admin import AdminServer


class Probe:
    """What the admin server is told, changed by a test."""

    ready = True


@pytest.fixture
def probe() -> Probe:
    return Probe()


@pytest.fixture
def server(probe: Probe) -> Iterator[AdminServer]:
    registry = CollectorRegistry()
    Counter("demo_things", "Things.", registry=registry).inc()
    server = AdminServer(
        "127.0.0.1:0",
        lambda: (probe.ready, {"why": "asked"}),
        registry=registry,
        pages={"/admin/page": lambda: {"x": 1}},
    )
    yield server
    server.close()


def get(server: AdminServer, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_metrics_are_served(server: AdminServer) -> None:
    assert "demo_things_total 1.0" in get(server, "/metrics")[1]


def test_readiness_follows_what_the_service_says(server: AdminServer, probe: Probe) -> None:
    assert get(server, "/health/ready") == (200, '{"why": "asked"}\n')
    probe.ready = False
    assert get(server, "/health/ready")[0] == 503


def test_a_silent_loop_is_seen_and_only_a_long_stall_is_fatal(server: AdminServer) -> None:
    server.lag.last_beat = time.monotonic() - 60
    code, body = get(server, "/health")
    assert code == 200
    assert json.loads(body)["loop_silent_seconds"] >= 60
    server.lag.last_beat = time.monotonic() - 121
    assert get(server, "/health")[0] == 503


def test_pages_are_json_and_unknown_paths_are_not_found(server: AdminServer) -> None:
    assert json.loads(get(server, "/admin/page")[1]) == {"x": 1}
    assert get(server, "/nothing")[0] == 404


def test_a_taken_address_is_an_os_error(server: AdminServer) -> None:
    with pytest.raises(OSError, match="in use"):
        AdminServer(f"127.0.0.1:{server.port}", lambda: (True, {}))
