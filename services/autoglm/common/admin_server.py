"""The port for kubelets and Prometheus: `/health`, `/health/ready`, `/metrics`.

Pages are served from threads of their own, so that a busy event loop is seen
(`autoglm_event_loop_lag_seconds`) and not killed: liveness fails only when the loop has not run for
`STALL_SECONDS`, or when the service itself says that it has stalled. Plain HTTP, since kubelet
probes present no certificates.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from prometheus_client import REGISTRY, CollectorRegistry, Gauge, Histogram, make_wsgi_app

from autoglm.common.addresses import split_address

_BEAT_SECONDS = 0.05
_LAG = Histogram(
    "autoglm_event_loop_lag_seconds",
    "How late the event loop ran a timer.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
_WORST = Gauge("autoglm_event_loop_lag_worst_seconds", "Longest event-loop stall since the start.")
_TASKS = Gauge("autoglm_event_loop_tasks", "Tasks on the event loop.")
# Tasks are counted at each of so many beats.
_COUNT_BEATS = 20
Readiness = Callable[[], tuple[bool, Mapping[str, Any]]]

PROCESS_HEADER = "autoglm-process"
"""Header of `/health/ready` with the process id, by which a supervisor knows its own child."""
STALL_SECONDS = 120.0
MAX_CONNECTIONS = 64
REQUEST_SECONDS = 5.0
"""For the head of a request to arrive."""
RESPONSE_SECONDS = 30.0
"""For a response to be made and read."""
_HEAD_BYTES = 16 * 1024
_BACKLOG = 128
# Several, so that a slow page or client does not delay the others.
_WORKERS = 4
_log = logging.getLogger("autoglm.pages")


@dataclass
class LoopLag:
    """Measures how late the event loop runs; `beat` must run on that loop."""

    last_beat: float = field(default_factory=time.monotonic)
    worst: float = 0.0

    async def beat(self) -> None:
        for number in itertools.count():
            if number % _COUNT_BEATS == 0:
                _TASKS.set(len(asyncio.all_tasks()))
            due = time.monotonic() + _BEAT_SECONDS
            await asyncio.sleep(_BEAT_SECONDS)
            self.last_beat = time.monotonic()
            lag = max(0.0, self.last_beat - due)
            _LAG.observe(lag)
            self.worst = max(self.worst, lag)
            _WORST.set(self.worst)


class AdminServer:
    """Serves probes and metrics until `close`. Raises OSError when the address is taken."""

    def __init__(
        self,
        address: str,
        ready: Readiness,
        *,
        registry: CollectorRegistry = REGISTRY,
        is_stalled: Callable[[], bool] = lambda: False,
        pages: Mapping[str, Callable[[], Mapping[str, Any]]] | None = None,
    ) -> None:
        self._ready = ready
        self._is_stalled = is_stalled
        self._metrics = make_wsgi_app(registry)
        self._pages = pages or {}
        self.lag = LoopLag()
        self._server = PageServer(address, self._probe, self._page)
        self.port = self._server.port

    def close(self) -> None:
        self._server.close()

    def _probe(self, request: PageRequest) -> Page | None:
        if request.path in ("/health", "/health/live"):
            silent = time.monotonic() - self.lag.last_beat
            live = silent < STALL_SECONDS and not self._is_stalled()
            return _json(live, {"live": live, "loop_silent_seconds": round(silent, 3)})
        if request.path == "/health/ready":
            page = _json(*self._ready())
            return replace(page, headers={**page.headers, PROCESS_HEADER: str(os.getpid())})
        return None

    def _page(self, request: PageRequest) -> Page:
        if request.path == "/metrics":
            return self._scrape(request)
        if request.path in self._pages:
            return _json(True, self._pages[request.path]())
        return _json(False, {"error": f"no page {request.path!r}"}, HTTPStatus.NOT_FOUND)

    def _scrape(self, request: PageRequest) -> Page:
        """Return the metrics in the format and the encoding that the scraper accepts."""
        started: list[tuple[str, list[tuple[str, str]]]] = []
        environ = {
            "REQUEST_METHOD": "GET",
            "PATH_INFO": request.path,
            "QUERY_STRING": request.query,
            "HTTP_ACCEPT": request.headers.get("accept", ""),
            "HTTP_ACCEPT_ENCODING": request.headers.get("accept-encoding", ""),
        }
        body = b"".join(self._metrics(environ, lambda *args: started.append(args)))
        status, headers = started[0]
        return Page(HTTPStatus(int(status.split()[0])), body, dict(headers))


def _json(
    ok: bool, payload: Mapping[str, Any], bad: HTTPStatus = HTTPStatus.SERVICE_UNAVAILABLE
) -> Page:
    body = json.dumps(payload).encode() + b"\n"
    return Page(HTTPStatus.OK if ok else bad, body, {"content-type": "application/json"})


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


class PageServer:
    """A small HTTP/1.1 server for a few pages, on an event loop in a thread of its own.

    It responds while the process's own loop is busy. `quick` handles paths on the server's loop and
    returns None for others, which `slow` handles on a worker. Connections are bounded in number and
    time, and each serves one request, GET or HEAD. The address `[::]` takes IPv4 as well. Raises
    OSError when the address is taken.
    """

    def __init__(
        self,
        address: str,
        quick: Callable[[PageRequest], Page | None],
        slow: Callable[[PageRequest], Page],
        *,
        max_connections: int = MAX_CONNECTIONS,
        request_seconds: float = REQUEST_SECONDS,
    ) -> None:
        self._quick = quick
        self._slow = slow
        self._max_connections = max_connections
        self._request_seconds = request_seconds
        self._open = 0
        host, port = split_address(address)
        self._listener = socket.create_server(
            (host, port),
            family=socket.AF_INET6 if ":" in host else socket.AF_INET,
            backlog=_BACKLOG,
            dualstack_ipv6=host == "::" and socket.has_dualstack_ipv6(),
        )
        self.port = int(self._listener.getsockname()[1])
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pages", daemon=True)
        self._thread.start()
        self._started.wait()

    def close(self) -> None:
        """End the server and its connections."""
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
