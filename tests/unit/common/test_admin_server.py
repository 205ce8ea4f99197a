import json
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from http import HTTPStatus

import pytest
from prometheus_client import CollectorRegistry, Counter

from autoglm.common.admin_server import AdminServer, Page, PageRequest, PageServer


class Probe:
    """The admin server's inputs, changed by a test."""

    ready = True
    stalled = False


@pytest.fixture
def probe() -> Probe:
    return Probe()


@pytest.fixture
def server(probe: Probe) -> Iterator[AdminServer]:
    registry = CollectorRegistry()
    Counter("demo_things", "Things.", registry=registry).inc()
    server = AdminServer(
        "127.0.0.1:0",
        lambda: (probe.ready, {"why": "test"}),
        registry=registry,
        is_stalled=lambda: probe.stalled,
        pages={"/admin/page": lambda: {"x": 1}},
    )
    yield server
    server.close()


def get(server: AdminServer, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}{path}", timeout=5) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_metrics_are_served(server: AdminServer) -> None:
    assert "demo_things_total 1.0" in get(server, "/metrics")[1]


def test_readiness_follows_what_the_service_says(server: AdminServer, probe: Probe) -> None:
    assert get(server, "/health/ready") == (200, '{"why": "test"}\n')
    probe.ready = False
    assert get(server, "/health/ready")[0] == 503


def test_a_silent_loop_is_seen_and_only_a_long_stall_is_fatal(server: AdminServer) -> None:
    server.lag.last_beat = time.monotonic() - 60
    code, body = get(server, "/health")
    assert code == 200
    assert json.loads(body)["loop_silent_seconds"] >= 60
    server.lag.last_beat = time.monotonic() - 121
    assert get(server, "/health")[0] == 503


def test_a_service_that_says_it_has_stalled_is_not_alive(server: AdminServer, probe: Probe) -> None:
    probe.stalled = True
    for path in ("/health", "/health/live"):
        assert get(server, path)[0] == 503


def test_pages_are_json_and_unknown_paths_are_not_found(server: AdminServer) -> None:
    assert json.loads(get(server, "/admin/page")[1]) == {"x": 1}
    assert get(server, "/nothing")[0] == 404


def test_a_taken_address_is_an_os_error(server: AdminServer) -> None:
    with pytest.raises(OSError, match="in use"):
        AdminServer(f"127.0.0.1:{server.port}", lambda: (True, {}))


def raw(server: AdminServer, request: bytes, host: str = "127.0.0.1") -> bytes:
    with socket.create_connection((host, server.port), timeout=5) as connection:
        connection.sendall(request)
        return b"".join(iter(lambda: connection.recv(4096), b""))


def test_head_is_get_without_a_body(server: AdminServer) -> None:
    for path in (b"/health", b"/metrics", b"/admin/page"):
        head, _, body = raw(server, b"HEAD %s HTTP/1.1\r\nhost: x\r\n\r\n" % path).partition(
            b"\r\n\r\n"
        )
        assert head.startswith(b"HTTP/1.1 200 OK") and b"content-length: " in head.lower()
        assert body == b""
    assert raw(server, b"POST /health HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 405 ")


def test_metrics_come_in_the_format_that_is_requested(server: AdminServer) -> None:
    request = (
        b"GET /metrics HTTP/1.1\r\naccept: application/openmetrics-text; version=1.0.0\r\n\r\n"
    )
    assert b"# EOF" in raw(server, request)


def test_a_page_that_fails_is_an_error(server: AdminServer) -> None:
    def fail() -> tuple[bool, dict[str, str]]:
        raise LookupError("nothing there")

    server._ready = fail
    assert get(server, "/health/ready")[0] == 500


def test_all_addresses_of_both_families_can_be_served() -> None:
    server = AdminServer("[::]:0", lambda: (True, {}))
    try:
        for host in ("::1", "127.0.0.1"):
            assert raw(server, b"GET /health HTTP/1.1\r\n\r\n", host).startswith(b"HTTP/1.1 200")
    finally:
        server.close()


def pages(**bounds: float) -> PageServer:
    page = Page(HTTPStatus.OK, b"page", {})
    return PageServer("127.0.0.1:0", lambda _: page, lambda _: page, **bounds)  # type: ignore[arg-type]


def test_a_slow_client_is_cut_off_and_connections_are_bounded() -> None:
    server = pages(max_connections=8, request_seconds=0.5)
    address = ("127.0.0.1", server.port)
    try:
        threads = threading.active_count()
        slow = [socket.create_connection(address, timeout=15) for _ in range(8)]
        for connection in slow:
            connection.sendall(b"GET ")
        one_too_many = socket.create_connection(address, timeout=15)
        with one_too_many, suppress(ConnectionResetError):
            assert one_too_many.recv(1) == b""
        assert threading.active_count() == threads
        for connection in slow:
            with connection, suppress(ConnectionResetError):
                assert connection.recv(1) == b""
        with socket.create_connection(address, timeout=15) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
            assert connection.recv(4096).endswith(b"page")
    finally:
        server.close()


def test_a_slow_page_keeps_no_probe_waiting() -> None:
    released = threading.Event()

    def slow(_: PageRequest) -> Page:
        released.wait(5)
        return Page(HTTPStatus.OK, b"", {})

    def quick(request: PageRequest) -> Page | None:
        return Page(HTTPStatus.OK, b"", {}) if request.path == "/health" else None

    server = PageServer("127.0.0.1:0", quick, slow)
    try:
        with socket.create_connection(("127.0.0.1", server.port), timeout=5) as waiting:
            waiting.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
            with socket.create_connection(("127.0.0.1", server.port), timeout=5) as probe:
                probe.sendall(b"GET /health HTTP/1.1\r\n\r\n")
                assert probe.recv(100).startswith(b"HTTP/1.1 200")
            assert not released.is_set()
            released.set()
            assert waiting.recv(100).startswith(b"HTTP/1.1 200")
    finally:
        released.set()
        server.close()
