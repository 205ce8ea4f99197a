"""The port for kubelets and Prometheus: `/health`, `/health/ready`, `/metrics`.

Answered from threads of its own, so that a busy event loop is seen
(`autoglm_event_loop_lag_seconds`) and not killed. Liveness fails only when
the loop has not run for `stall_seconds`. Plain HTTP, since kubelet probes bring no certificates.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import REGISTRY, CollectorRegistry, Gauge, Histogram, make_wsgi_app

from autoglm.common.addresses import split_address

BEAT_SECONDS = 0.05
# How long `close` may take to be noticed.
_POLL_SECONDS = 0.1
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


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _QuietHandler(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Probes come every second; their lines would drown the log."""


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
        host, port = split_address(address)
        self._server = make_server(
            host, port, self._answer, server_class=_Server, handler_class=_QuietHandler
        )
        self.port: int = self._server.server_port
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(_POLL_SECONDS,), daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        path = environ["PATH_INFO"].rstrip("/")
        if path == "/metrics":
            page: Iterable[bytes] = self._metrics(environ, start_response)
            return page
        if path in ("/health", "/health/live"):
            return _json(start_response, *self._live())
        if path == "/health/ready":
            return _json(start_response, *self._ready())
        if path in self._pages:
            return _json(start_response, True, self._pages[path]())
        return _json(start_response, False, {"error": f"no page {path!r}"}, "404 Not Found")

    def _live(self) -> tuple[bool, Mapping[str, Any]]:
        silent = time.monotonic() - self.lag.last_beat
        live = silent < self._stall_seconds
        return live, {"live": live, "loop_silent_seconds": round(silent, 3)}


def _json(
    start_response: Any, ok: bool, payload: Mapping[str, Any], bad: str = "503 Service Unavailable"
) -> Iterable[bytes]:
    start_response("200 OK" if ok else bad, [("Content-Type", "application/json")])
    return [json.dumps(payload).encode() + b"\n"]
