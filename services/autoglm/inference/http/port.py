"""The pod's HTTP port: the engine's own app, with the pod's routes in front, run by uvicorn.

`HttpObserver` wraps all of it: it counts, traces and logs requests, serves `/health/ready`,
rejects paths that `http_apis` does not list, such as those that manage the engine, and all requests
once the pod is closing. Bodies pass through untouched.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

from autoglm.common import errors, rpc, status
from autoglm.common.addresses import split_address
from autoglm.common.errors import Outcome, outcome_of_status
from autoglm.common.request_telemetry import trace_headers
from autoglm.inference.engine import AsgiApp, Message, Receive, Scope, Send
from autoglm.inference.http.app_errors import AppErrors
from autoglm.inference.http.asgi import reject, respond
from autoglm.inference.http.protocol import HttpProtocol
from autoglm.inference.kv import cache_salt
from autoglm.inference.observation import Observation, outcome_of
from autoglm.inference.pod import Pod
from autoglm.validation import http_errors
from autoglm.validation.http_apis import (
    INFERENCE_GETS,
    POD_GETS,
    inference_post,
    is_served_by_pods,
)

READY_PATH = "/health/ready"
# Polled every second by probes and scrapers; not counted as requests.
_UNOBSERVED = ("/health", "/metrics", "/ping", "/load", "/v2/health/live", "/v2/health/ready")
_LABELS = frozenset((*POD_GETS, *(api.path for api in INFERENCE_GETS), "/v2"))
_JSON = [(b"content-type", b"application/json")]
_BACKLOG = 2048


def route_of(path: str) -> str:
    """The path as a bounded label."""
    if path.startswith("/v2/models/"):
        return "/v2/models"
    api = inference_post(path)
    return api.route if api is not None else path if path in _LABELS else "other"


class HttpObserver:
    """ASGI middleware. `app` is read at every request, as it comes with the engine."""

    def __init__(self, app: AsgiApp, pod: Pod) -> None:
        self._app = app
        self._pod = pod

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif not is_served_by_pods(scope["method"], path):
            unknown = http_errors.UnknownPath(f"this pod does not serve {path[:100]!r}")
            await reject(send, unknown, rpc.new_request_id(), path)
        elif path in _UNOBSERVED:
            await self._app(scope, receive, send)
        elif path == READY_PATH:
            code, body = (200, b"true") if self._pod.is_ready else (503, b"false")
            await respond(send, code, _JSON, b'{"ready":%s}' % body)
        else:
            await self._observed(scope, receive, send)

    async def _observed(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(k.decode("latin-1"), v.decode("latin-1")) for k, v in scope["headers"]]
        request = rpc.rpc_from_metadata(scope["path"], headers)
        try:
            with self._pod.request():
                await self._served(scope, receive, send, request)
        except errors.ShuttingDown as error:
            await reject(send, error, request.request_id, scope["path"])

    async def _served(self, scope: Scope, receive: Receive, send: Send, request: rpc.Rpc) -> None:
        name = f"{scope['method']} {route_of(scope['path'])}"
        seen = Observation.begin("http", name, request.request_id, request.trace_headers)
        path: str = scope["path"]
        answer = _ObservedResponse(self._pod, seen, path, AppErrors(send, path, request.request_id))
        failure: BaseException | None = None
        try:
            with cache_salt.salted(request.cache_salt):
                await self._app(_in_span(scope, seen), receive, answer)
        except BaseException as error:
            failure = error
            raise
        finally:
            answer.end(failure)


class _ObservedResponse:
    """Forwards a response and records its status."""

    def __init__(self, pod: Pod, seen: Observation, path: str, send: Send) -> None:
        self._pod = pod
        self._seen = seen
        self._own = http_errors.request_id_headers(seen.request_id, path)
        self._send = send
        self._status = 0
        self._whole = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            message = {**message, "headers": self._headers(message.get("headers", ()))}
        elif message["type"] == "http.response.body":
            self._whole = not message.get("more_body", False)
            if message.get("body"):
                self._seen.chunk()
        await self._send(message)

    def end(self, failure: BaseException | None) -> None:
        outcome = outcome_of(failure) if failure else outcome_of_status(self._status)
        if failure is None and not self._whole:
            outcome = Outcome.CANCELLED
        self._seen.end(outcome, str(self._status))

    def _headers(self, headers: Any) -> list[tuple[bytes, bytes]]:
        own = {name.encode(): value.encode("latin-1") for name, value in self._own.items()}
        kept = [(k, v) for k, v in headers if k.lower() not in own]
        kept.extend(own.items())
        if self._pod.is_draining:
            # Clients that keep connections would send their next request here otherwise.
            kept.append((b"connection", b"close"))
        return kept


def _in_span(scope: Scope, seen: Observation) -> Scope:
    """The scope with trace headers that make the engine's spans children of the request's."""
    carrier = {k.encode(): v.encode() for k, v in trace_headers(seen.span).items()}
    carrier[status.REQUEST_ID.encode()] = seen.request_id.encode("latin-1")
    others = [(k, v) for k, v in scope["headers"] if k not in carrier]
    return {**scope, "headers": [*others, *carrier.items()]}


def bind(address: str) -> socket.socket:
    """A socket that owns the address but does not listen yet. Raises OSError."""
    host, port = split_address(address)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
    except OSError:
        bound.close()
        raise
    return bound


class _Uvicorn(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the pod's to handle."""
        yield


class HttpServer:
    """Serves an app on a bound socket until `stop`."""

    def __init__(self, app: AsgiApp, context: ssl.SSLContext | None) -> None:
        config = uvicorn.Config(
            app, http=HttpProtocol, loop="none", ws="none", log_config=None, access_log=False,
            backlog=_BACKLOG, server_header=False, timeout_keep_alive=75,
        )  # fmt: skip
        config.load()
        config.ssl = context
        self._config = config
        self._server = _Uvicorn(config)
        self._task: asyncio.Task[None] | None = None

    async def start(self, bound: socket.socket) -> None:
        self._task = asyncio.create_task(self._server.serve([bound]), name="http")
        while not self._server.started:
            if self._task.done():
                await self._task
                raise RuntimeError("the HTTP server ended before it had started")
            await asyncio.sleep(0.01)

    async def stop(self, grace_seconds: float) -> None:
        """Accepts no new connections; open responses may finish within the grace, in seconds."""
        self._config.timeout_graceful_shutdown = max(1, round(grace_seconds))
        self._server.should_exit = True
        if self._task is not None:
            await self._task
