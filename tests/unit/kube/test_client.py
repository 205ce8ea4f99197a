"""The client over real connections: errors, watches, credentials and pages."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
import trustme
from tests.support.kube.fake_api_server import FakeApiServer, Faults, served
from tests.support.kube.objects import agd

from autoglm.kube.client import Client, ConfigException, Configuration, configure
from autoglm.kube.kinds import RESOURCE
from autoglm.kube.transport import APPLY, Refused, Request, TimedOut, Unreachable

LIST = Request("GET", RESOURCE.path(), (("limit", "500"),))
WATCH = Request("GET", RESOURCE.path(), (("watch", "1"), ("resourceVersion", "0")))


@asynccontextmanager
async def connected(server: FakeApiServer | Faults) -> AsyncIterator[Client]:
    async with served(server) as configuration, closing(configuration) as client:
        yield client


@asynccontextmanager
async def closing(configuration: Configuration) -> AsyncIterator[Client]:
    client = Client(configuration, "tests")
    yield client
    await client.close()


@dataclass
class Raw:
    """A server of bytes: sends `response` to each request, and keeps the heads."""

    response: bytes
    heads: list[bytes] = field(default_factory=list)
    connections: int = 0

    _serving: list[asyncio.Task[None]] = field(default_factory=list)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Configuration]:
        async with await asyncio.start_server(self._accept, "127.0.0.1", 0) as server:
            configuration = Configuration()
            configuration.host = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            yield configuration
        # The clients have closed their connections.
        await asyncio.gather(*self._serving)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._serving.append(asyncio.create_task(self._serve(reader, writer)))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError):
            while True:
                self.heads.append(await reader.readuntil(b"\r\n\r\n"))
                writer.write(self.response)
        writer.close()
        await writer.wait_closed()


async def test_objects_are_written_and_read() -> None:
    server = FakeApiServer()
    async with connected(server) as client:
        path, body = RESOURCE.path("default", "glm"), agd("glm")
        await client.send(Request("PATCH", path, (("force", "true"),), body, APPLY), 5)
        assert b'"name": "glm"' in await client.send(Request("GET", path), 5)
    (write,) = server.writes
    assert (write.content_type, write.body) == (APPLY, body)


async def test_a_watch_yields_lines_until_the_connection_is_cut() -> None:
    server = FakeApiServer()
    server.add(agd("a"))
    async with connected(server) as client:
        lines = client.stream(WATCH)
        assert b'"ADDED"' in await anext(lines)
        server.add(agd("a"))
        assert b'"MODIFIED"' in await anext(lines)
        server.stop()
        with pytest.raises(Unreachable):
            await anext(lines)
        with pytest.raises(Unreachable):
            await client.send(LIST, 5)
        server.start()
        await client.send(LIST, 5)


async def test_a_status_of_the_api_server_is_kept_whole() -> None:
    causes = [{"reason": "FieldManagerConflict", "field": ".spec"}]
    refusal = Refused(429, "TooManyRequests", "later", causes=causes, retry_after=7)
    async with connected(Faults(FakeApiServer(), before=lambda _: refusal)) as client:
        with pytest.raises(Refused) as found:
            await client.send(LIST, 5)
        watch = client.stream(WATCH)
        with pytest.raises(Refused):
            await anext(watch)
    error = found.value
    assert (error.status, error.reason, error.message) == (429, "TooManyRequests", "later")
    assert (list(error.causes), error.retry_after) == (causes, 7)


async def test_a_page_of_a_proxy_is_one_short_line() -> None:
    page = b"<html>\n <b>Bad gateway</b>\n" + b"x" * 1000
    server = Raw(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: %d\r\n\r\n%s" % (len(page), page))
    async with server.running() as configuration, closing(configuration) as client:
        with pytest.raises(Refused) as found:
            await client.send(LIST, 5)
    assert found.value.message.startswith("<html> <b>Bad gateway</b> xxx")
    assert len(found.value.message) <= 200


async def test_a_response_that_is_late_is_a_time_out_and_a_closed_port_unreachable() -> None:
    slow = Faults(FakeApiServer(), delay=lambda _: 30)
    async with connected(slow) as client:
        with pytest.raises(TimedOut):
            await client.send(LIST, 0.05)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        configuration = Configuration()
        configuration.host = f"http://127.0.0.1:{unused.getsockname()[1]}"
        async with closing(configuration) as client:
            with pytest.raises(Unreachable) as found:
                await client.send(LIST, 5)
    assert not isinstance(found.value, TimedOut)


async def test_the_current_token_is_sent_with_each_request_over_one_connection() -> None:
    tokens = iter(("old", "new"))

    def rotate(configuration: Any) -> None:
        configuration.api_key["BearerToken"] = f"bearer {next(tokens)}"

    server = Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
    async with server.running() as configuration, closing(configuration) as client:
        # The client types it as always None.
        configuration.refresh_api_key_hook = rotate  # type: ignore[assignment]
        assert [await client.send(LIST, 5) for _ in range(2)] == [b"{}"] * 2
    assert server.connections == 1
    assert b"bearer old" in server.heads[0] and b"bearer new" in server.heads[1]
    assert b"User-Agent: open-autoglm/tests" in server.heads[0]


async def test_a_closed_client_leaves_no_connection_open_over_tls(tmp_path: Path) -> None:
    authority, context = trustme.CA(), ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    server = FakeApiServer()
    server.add(agd("a"))
    async with served(server, context) as configuration:
        configuration.ssl_ca_cert = str(tmp_path / "ca.pem")
        client = Client(configuration, "tests")
        await client.send(LIST, 5)
        lines = client.stream(WATCH)
        async with aclosing(lines):  # type: ignore[type-var]  # a generator in fact
            assert b'"ADDED"' in await anext(lines)
        await client.close()
        # At once, since the event loop may end here.
        port = int(configuration.host.rpartition(":")[2])
        sockets = psutil.Process().net_connections("tcp")
        assert [s for s in sockets if s.raddr and s.raddr.port == port] == []


async def test_a_server_that_does_not_end_tls_keeps_no_connection_of_a_closed_client(
    tmp_path: Path,
) -> None:
    authority, context = trustme.CA(), ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    listener, is_over = socket.create_server(("127.0.0.1", 0)), threading.Event()

    def serve() -> None:
        with listener, context.wrap_socket(listener.accept()[0], server_side=True) as connection:
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n1\n\r\n")
            # Reads nothing any more: no TLS shutdown is noticed.
            is_over.wait(30)

    serving, configuration = asyncio.create_task(asyncio.to_thread(serve)), Configuration()
    port = listener.getsockname()[1]
    configuration.host = f"https://127.0.0.1:{port}"
    configuration.ssl_ca_cert = str(tmp_path / "ca.pem")
    client = Client(configuration, "tests")
    lines = client.stream(WATCH)
    async with aclosing(lines):  # type: ignore[type-var]  # a generator in fact
        assert await anext(lines) == b"1\n"
    await client.close()
    sockets = psutil.Process().net_connections("tcp")
    assert [s for s in sockets if s.raddr and s.raddr.port == port] == []
    is_over.set()
    await serving


async def test_a_file_that_is_no_kubeconfig_is_named(tmp_path: Any) -> None:
    file = tmp_path / "config"
    file.write_text("contexts: 1\n")
    with pytest.raises(ConfigException, match=str(file)):
        await configure(str(file))
