"""A small HTTP/1.1 server for a few pages, on an event loop in a thread of its own.

It responds while the process's own loop is busy. Connections are bounded in number and time, and
each serves one request, GET or HEAD.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import urlsplit

from autoglm.common.addresses import split_address

_log = logging.getLogger("autoglm.pages")
MAX_CONNECTIONS = 64
REQUEST_SECONDS = 5.0
"""For the head of a request to arrive."""
RESPONSE_SECONDS = 30.0
"""For a response to be made and read."""
_HEAD_BYTES = 16 * 1024
_BACKLOG = 128
# Of pages that take long, such as metrics of many processes; others are not kept waiting by them.
_WORKERS = 4


@dataclass(frozen=True, slots=True)
class Page:
    status: HTTPStatus
    body: bytes
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class PageRequest:
    """`headers` have names in lower case."""

    path: str
    query: str
    headers: Mapping[str, str]


Handler = Callable[[PageRequest], Page]


def listener(address: str) -> socket.socket:
    """A listening socket; `[::]` takes IPv4 as well. Raises OSError."""
    host, port = split_address(address)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    both = host == "::" and socket.has_dualstack_ipv6()
    return socket.create_server((host, port), family=family, backlog=_BACKLOG, dualstack_ipv6=both)


class PageServer:
    """Serves until `close`. `quick` handles paths on the server's loop, `slow` on its workers.

    A handler of `quick` returns None for a path that is none of its own. Raises OSError where the
    address is taken.
    """

    def __init__(
        self,
        address: str,
        quick: Callable[[PageRequest], Page | None],
        slow: Handler,
        *,
        max_connections: int = MAX_CONNECTIONS,
        request_seconds: float = REQUEST_SECONDS,
    ) -> None:
        self._quick = quick
        self._slow = slow
        self._max_connections = max_connections
        self._request_seconds = request_seconds
        self._open = 0
        self._listener = listener(address)
        self.port = int(self._listener.getsockname()[1])
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pages", daemon=True)
        self._thread.start()
        self._started.wait()

    def close(self) -> None:
        """Ends the server and its connections."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join()

    def _run(self) -> None:
        with (
            ThreadPoolExecutor(_WORKERS, thread_name_prefix="page") as self._workers,
            asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner,
        ):
            runner.run(self._serve())

    async def _serve(self) -> None:
        self._loop, self._ended = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._connected, sock=self._listener, limit=_HEAD_BYTES)
        self._started.set()
        await self._ended.wait()
        server.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._open >= self._max_connections:
            writer.transport.abort()
            return
        self._open += 1
        try:
            async with asyncio.timeout(self._request_seconds):
                head = await reader.readuntil(b"\r\n\r\n")
            async with asyncio.timeout(RESPONSE_SECONDS):
                writer.write(await self._response(head))
                await writer.drain()
                writer.close()
                await writer.wait_closed()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # A client that is slow, has left, or sends something else.
        finally:
            self._open -= 1
            writer.transport.abort()

    async def _response(self, head: bytes) -> bytes:
        line, *lines = head.decode("latin-1").split("\r\n")
        method, _, rest = line.partition(" ")
        if method not in ("GET", "HEAD"):
            allow = {"allow": "GET, HEAD"}
            return _encoded(Page(HTTPStatus.METHOD_NOT_ALLOWED, b"", allow), with_body=True)
        target = urlsplit(rest.rpartition(" ")[0] or rest)
        fields = (each.partition(":") for each in lines if ":" in each)
        headers = {name.strip().lower(): value.strip() for name, _, value in fields}
        request = PageRequest(target.path.rstrip("/"), target.query, headers)
        try:
            page = self._quick(request)
            if page is None:
                page = await self._loop.run_in_executor(self._workers, self._slow, request)
        except Exception:
            _log.exception("unexpected error in %s", request.path)
            page = Page(HTTPStatus.INTERNAL_SERVER_ERROR, b"", {})
        return _encoded(page, with_body=method == "GET")


def _encoded(page: Page, *, with_body: bool) -> bytes:
    headers = {**page.headers, "content-length": str(len(page.body)), "connection": "close"}
    lines = [f"HTTP/1.1 {page.status.value} {page.status.phrase}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    head = "\r\n".join([*lines, "", ""]).encode("latin-1")
    return head + page.body if with_body else head
