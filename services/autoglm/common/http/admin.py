"""The port for kubelets and Prometheus: `/health`, `/health/ready`, `/metrics`.

Served from threads of its own, so that a busy event loop is seen
(`autoglm_event_loop_lag_seconds`) and not killed. Liveness fails only when
the loop has not run for `stall_seconds`. Plain HTTP, since kubelet probes bring no certificates.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from prometheus_client import REGISTRY, CollectorRegistry, Gauge, Histogram, make_wsgi_app

from autoglm.common.http.page_server import Page, PageRequest, PageServer

BEAT_SECONDS = 0.05
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


@dataclass
class LoopLag:
    """Measures how late the event loop runs; `beat` must run on the loop."""

    last_beat: float = field(default_factory=time.monotonic)
    worst: float = 0.0

    async def beat(self) -> None:
        for number in itertools.count():
            if number % _COUNT_BEATS == 0:
                _TASKS.set(len(asyncio.all_tasks()))
            due = time.monotonic() + BEAT_SECONDS
            await asyncio.sleep(BEAT_SECONDS)
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
        pages: Mapping[str, Callable[[], Mapping[str, Any]]] | None = None,
        stall_seconds: float = 120.0,
    ) -> None:
        self._ready = ready
        self._metrics = make_wsgi_app(registry)
        self._pages = pages or {}
        self._stall_seconds = stall_seconds
        self.lag = LoopLag()
        self._server = PageServer(address, self._probe, self._page)
        self.port = self._server.port

    def close(self) -> None:
        self._server.close()

    def _probe(self, request: PageRequest) -> Page | None:
        if request.path in ("/health", "/health/live"):
            return _json(*self._live())
        if request.path == "/health/ready":
            return _json(*self._ready())
        return None

    def _page(self, request: PageRequest) -> Page:
        if request.path == "/metrics":
            return self._scraped(request)
        if request.path in self._pages:
            return _json(True, self._pages[request.path]())
        return _json(False, {"error": f"no page {request.path!r}"}, HTTPStatus.NOT_FOUND)

    def _scraped(self, request: PageRequest) -> Page:
        """In the format and the encoding that the scraper accepts."""
        begun: list[tuple[str, list[tuple[str, str]]]] = []
        environ = {
            "REQUEST_METHOD": "GET",
            "PATH_INFO": request.path,
            "QUERY_STRING": request.query,
            "HTTP_ACCEPT": request.headers.get("accept", ""),
            "HTTP_ACCEPT_ENCODING": request.headers.get("accept-encoding", ""),
        }
        body = b"".join(self._metrics(environ, lambda *started: begun.append(started)))
        status, headers = begun[0]
        return Page(HTTPStatus(int(status.split()[0])), body, dict(headers))

    def _live(self) -> tuple[bool, Mapping[str, Any]]:
        silent = time.monotonic() - self.lag.last_beat
        live = silent < self._stall_seconds
        return live, {"live": live, "loop_silent_seconds": round(silent, 3)}


def _json(
    ok: bool, payload: Mapping[str, Any], bad: HTTPStatus = HTTPStatus.SERVICE_UNAVAILABLE
) -> Page:
    body = json.dumps(payload).encode() + b"\n"
    return Page(HTTPStatus.OK if ok else bad, body, {"content-type": "application/json"})
