"""The outermost ASGI middleware of a pod's HTTP port.

`HttpObserver` counts, traces and logs requests, serves `/health/ready`, and rejects paths that
`http_apis` does not list, such as those that manage the engine, and all requests once the pod is
closing. Bodies pass through untouched, but for errors of the engine's app, which are rendered in
the dialect of the path: vLLM sends some errors of the Messages API in OpenAI's shape, and
frameworks have their own for unknown paths.
"""

from __future__ import annotations

from autoglm.common import errors, rpc, status
from autoglm.common.errors import Outcome, Unimplemented, outcome_of_status
from autoglm.common.request_telemetry import trace_headers
from autoglm.inference.engine import AsgiApp, Message, Receive, Scope, Send
from autoglm.inference.http.asgi import reject, respond
from autoglm.inference.kv import cache_salt
from autoglm.inference.observation import Observation, outcome_of
from autoglm.inference.pod import Pod
from autoglm.validation.http_apis import (
    INFERENCE_GETS,
    POD_GETS,
    dialect_of,
    inference_post,
    is_served_by_pods,
)
from autoglm.validation.http_errors import (
    SHOULD_RETRY,
    UnknownPath,
    request_id_headers,
    to_http,
    translated,
)

READY_PATH = "/health/ready"
# Polled every second by probes and scrapers; not counted as requests.
_UNOBSERVED = ("/health", "/metrics", "/ping", "/load", "/v2/health/live", "/v2/health/ready")
_LABELS = frozenset((*POD_GETS, *(api.path for api in INFERENCE_GETS), "/v2"))
_JSON = [(b"content-type", b"application/json")]
# A longer error is passed on as it is.
_MAX_ERROR_BYTES = 64 * 1024
# What FastAPI and Starlette send where an app has no such route.
_NO_ROUTE = (b'{"detail":"Not Found"}', b"Not Found")


def route_of(path: str) -> str:
    """Return the path as a bounded label."""
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
            unknown = UnknownPath(f"this pod does not serve {path[:100]!r}")
            await reject(send, unknown, rpc.new_request_id(), path)
        elif path in _UNOBSERVED:
            await self._app(scope, receive, send)
        elif path == READY_PATH:
            code, body = (200, b"true") if self._pod.is_ready else (503, b"false")
            await respond(send, code, _JSON, b'{"ready":%s}' % body)
        else:
            headers = [(k.decode("latin-1"), v.decode("latin-1")) for k, v in scope["headers"]]
            request = rpc.rpc_from_metadata(path, headers)
            try:
                with self._pod.request():
                    await self._observed(scope, receive, send, request)
            except errors.ShuttingDown as error:
                await reject(send, error, request.request_id, path)

    async def _observed(self, scope: Scope, receive: Receive, send: Send, request: rpc.Rpc) -> None:
        path = scope["path"]
        name = f"{scope['method']} {route_of(path)}"
        seen = Observation.begin("http", name, request.request_id, request.trace_headers)
        response = _ObservedResponse(
            self._pod, seen, path, AppErrors(send, path, request.request_id)
        )
        # Makes the engine's spans children of the request's.
        carrier = {k.encode(): v.encode() for k, v in trace_headers(seen.span).items()}
        carrier[status.REQUEST_ID.encode()] = seen.request_id.encode("latin-1")
        others = [(k, v) for k, v in scope["headers"] if k not in carrier]
        scope = {**scope, "headers": [*others, *carrier.items()]}
        failure: BaseException | None = None
        try:
            with cache_salt.salted(request.cache_salt):
                await self._app(scope, receive, response)
        except BaseException as error:
            failure = error
            raise
        finally:
            response.end(failure)


class _ObservedResponse:
    """An ASGI `send` that forwards a response and records its status."""

    def __init__(self, pod: Pod, seen: Observation, path: str, send: Send) -> None:
        self._pod = pod
        self._seen = seen
        self._own = request_id_headers(seen.request_id, path)
        self._send = send
        self._status = 0
        self._whole = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            own = {name.encode(): value.encode("latin-1") for name, value in self._own.items()}
            headers = [(k, v) for k, v in message.get("headers", ()) if k.lower() not in own]
            headers.extend(own.items())
            if self._pod.is_draining:
                # Clients that keep connections would send their next request here otherwise.
                headers.append((b"connection", b"close"))
            message = {**message, "headers": headers}
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


class AppErrors:
    """An ASGI `send` that renders errors and passes on everything else untouched."""

    def __init__(self, send: Send, path: str, request_id: str) -> None:
        self._send = send
        self._path = path
        self._request_id = request_id
        self._start: Message | None = None
        self._body = bytearray()

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start" and message["status"] >= 400:
            self._start = message
            return
        if self._start is None or message["type"] != "http.response.body":
            await self._send(message)
            return
        self._body += message.get("body", b"")
        more = message.get("more_body", False)
        if more and len(self._body) <= _MAX_ERROR_BYTES:
            return
        start, self._start, body = self._start, None, bytes(self._body)
        if not more:
            body = self._rendered(body, start["status"])
            ours = [(b"content-length", b"%d" % len(body)), *_JSON]
            if start["status"] == Unimplemented.http_status:
                ours.append((SHOULD_RETRY.encode(), b"false"))
            names = {name for name, _ in ours}
            kept = [(k, v) for k, v in start.get("headers", ()) if k.lower() not in names]
            start = {**start, "headers": [*kept, *ours]}
        await self._send(start)
        await self._send({"type": "http.response.body", "body": body, "more_body": more})

    def _rendered(self, body: bytes, code: int) -> bytes:
        if body not in _NO_ROUTE:
            return translated(body, code, self._request_id, dialect_of(self._path))
        # The app has the routes that its model can serve.
        api = inference_post(self._path)
        needs = f"; it needs {api.needs}" if api and api.needs else ""
        problem = f"the model of this pod does not serve {self._path[:100]}{needs}"
        return to_http(UnknownPath(problem), self._request_id, self._path).body
