"""A command that cannot reach a server says why in one sentence, and at once."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme

from autoglm.cli.reach import check_reach
from autoglm.common.errors import NoReadyEndpoint
from autoglm.common.tls import TlsFiles
from autoglm.testing.fake_server import FakeServer

Serve = Callable[[socket.socket], None]


@contextmanager
def listening(serve: Serve) -> Iterator[str]:
    """A server of one connection on loopback; its HOST:PORT."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)

        def run() -> None:
            connection, _ = listener.accept()
            with connection:
                serve(connection)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            thread.join(10)


def closed_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"127.0.0.1:{listener.getsockname()[1]}"


def authority_file(directory: Path, authority: trustme.CA) -> str:
    file = directory / "ca.pem"
    authority.cert_pem.write_to_path(file)
    return str(file)


def says(text: bytes) -> Serve:
    def serve(connection: socket.socket) -> None:
        connection.recv(100)
        connection.sendall(text)

    return serve


@pytest.mark.parametrize(
    "address", ["localhost", "127.0.0.1:99999", "127.0.0.1:", ":50051", "127.0.0.1:http"]
)
def test_what_is_not_host_and_port_is_a_usage_error(autoglm: Any, address: str) -> None:
    result = autoglm("models", "--address", address)
    assert result.code == 2
    assert f"{address!r} is not HOST:PORT" in result.err


def test_a_port_at_which_nothing_listens_is_named_with_the_way_out(autoglm: Any) -> None:
    address, begun = closed_port(), time.monotonic()
    result = autoglm("models", "--address", address)
    assert time.monotonic() - begun < 1
    assert result.code == 1
    assert result.err.startswith(f"NO_READY_ENDPOINT: no gateway or pod listens at {address}")
    assert "autoglm up" in result.err and "--address" in result.err


@pytest.mark.parametrize(
    ("first", "why"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "is not a gRPC port but one of HTTP/1.1"),
        (b"\x15\x03\x01\x00\x02\x02\x0a", "expects TLS"),
        (b"", "expects TLS, or is no gRPC port"),
        (b"220 mail ready\r\n", "is no gRPC port"),
    ],
)
def test_another_kind_of_port_is_named(autoglm: Any, first: bytes, why: str) -> None:
    with listening(says(first)) as address:
        result = autoglm("models", "--address", address)
    assert result.code == 1
    assert f"{address} {why}" in result.err


def test_a_server_without_tls_is_named(autoglm: Any, server: FakeServer, tmp_path: Path) -> None:
    result = autoglm("models", "--tls-ca-file", authority_file(tmp_path, trustme.CA()))
    assert result.code == 1
    assert "does not speak TLS; leave out --tls-ca-file" in result.err


def test_a_certificate_of_another_authority_is_named(autoglm: Any, tmp_path: Path) -> None:
    def serve(connection: socket.socket) -> None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
        with pytest.raises(OSError, match="alert"):
            context.wrap_socket(connection, server_side=True)

    ours = authority_file(tmp_path, trustme.CA())
    with listening(serve) as address:
        result = autoglm("models", "--address", address, "--tls-ca-file", ours)
    assert result.code == 1
    assert "has a certificate that is not accepted" in result.err


def test_hosts_behind_a_proxy_are_left_to_grpc(monkeypatch: pytest.MonkeyPatch) -> None:
    address = closed_port()
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    check_reach(address, TlsFiles())
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with pytest.raises(NoReadyEndpoint):
        check_reach(address, TlsFiles())


def test_a_server_of_grpc_is_used(autoglm: Any, server: FakeServer) -> None:
    assert autoglm("models").code == 0


@pytest.mark.parametrize("text", ["", "one\ntwo", "a key", "schlüssel"])
def test_a_file_that_is_not_one_key_is_a_usage_error(
    autoglm: Any, server: FakeServer, tmp_path: Path, text: str
) -> None:
    file = tmp_path / "key"
    file.write_text(text)
    result = autoglm("models", "--api-key-file", str(file))
    assert result.code == 2
    assert f"{file}: the file has to contain one API key" in result.err.replace("\n", " ")
