"""The gateway's REST port: OpenAI's API, the Open Inference Protocol over REST, probes, metrics.

Decodes HTTP requests, passes them to the pipeline and writes the responses. Decides nothing about
models, endpoints or retries; responses are forwarded as bytes. `http1` has the connections: their
bounds, timeouts and framing. Built by `app`.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from urllib.parse import quote

from msgspec.structs import replace
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from autoglm.common import errors
from autoglm.common.admin_server import Readiness
from autoglm.gateway.edges import docs_page, rest_local
from autoglm.gateway.edges.cors import Cors
from autoglm.gateway.edges.rest_request import (
    Bounds,
    HttpRequest,
    MethodNotAllowed,
    protocol_error,
    request_of,
    unquoted,
)
from autoglm.gateway.edges.rest_response import (
    JSON,
    json_body,
    respond,
    send,
    send_error,
    send_json,
)
from autoglm.gateway.edges.start_throttle import StartThrottle
from autoglm.gateway.endpoints.snapshot import Snapshot, visible
from autoglm.gateway.pipeline import Respond
from autoglm.gateway.request.request import GatewayRequest, Handler, Response
from autoglm.http1.exchange import ClientDisconnected, Exchange
from autoglm.validation import Billing, Operation, RequestInfo, http_errors
from autoglm.validation.http_apis import (
    DENIED,
    INFERENCE_GETS,
    INFERENCE_POSTS,
    MODEL,
    STORED,
)

# A model's name, which may have slashes; but not what is a POST's path.
_OIP_NAME = "(?!.*/(?:infer|generate|generate_stream)/?$).+"
# `render` is a path of its own, and an `allow` header must not list what a stored response allows.
_NAMES = {"model": ".+", "response_id": "(?!render$)[^/]+", "oip_model": _OIP_NAME}
_NAMED = re.compile(r"\{(\w+)(?::[^}]*)?\}")
# In one round of the event loop, of some hundred microseconds each.
_BEGIN_AT_ONCE = 8
_log = logging.getLogger("autoglm.gateway")


@dataclass(frozen=True, slots=True)
class RestParts:
    """Dependencies of the edge. `local` handles the gateway's own pages."""

    pipeline: Handler
    local: Callable[[Respond], Handler]
    snapshot: Callable[[], Snapshot]
    ready: Readiness
    registry: CollectorRegistry
    bounds: Bounds
    cors: Cors = Cors()


Page = Callable[[Snapshot, str], Mapping[str, object]]
Serve = Callable[[HttpRequest], Awaitable[None]]
_PAGES: Mapping[str, Page] = {
    "/v1/models": lambda snapshot, _: rest_local.models(snapshot),
    f"/v1/models/{MODEL}": rest_local.model,
    "/v2": lambda *_: rest_local.oip_server(),
    "/version": lambda *_: rest_local.version(),
    "/": lambda *_: rest_local.index(),
}


@dataclass(frozen=True, slots=True)
class Route:
    """A path with its methods. A name within it, such as `{model}`, is `pattern`'s only group."""

    path: str
    pattern: re.Pattern[str]
    methods: dict[str, Serve] = field(default_factory=dict)


class RestEdge:
    """Responds to all requests of the port."""

    def __init__(self, parts: RestParts) -> None:
        self._parts = parts
        self._start = StartThrottle(_BEGIN_AT_ONCE)
        self.routes: dict[str, Route] = {}
        """By path, in the order in which they are tried."""
        for api in INFERENCE_POSTS:
            self._add("POST", api.path, self._relayed)
        for method, path in STORED:
            self._add(method, path, self._stored)
        for path, get in self._gets().items():
            self._add("GET", path, get)
            self._add("HEAD", path, get)
        self._templates = [route for route in self.routes.values() if "{" in route.path]

    def _add(self, method: str, path: str, serve: Serve) -> None:
        label = _NAMED.sub(lambda name: f"{{{name[1].removeprefix('oip_')}}}", path)
        if label not in self.routes:
            before, *named = _NAMED.split(path)
            parts = (f"({_NAMES[name]}){re.escape(then)}" for name, then in _pairs(named))
            self.routes[label] = Route(label, re.compile(re.escape(before) + "".join(parts)))
        self.routes[label].methods[method] = serve

    def _gets(self) -> Mapping[str, Serve]:
        ready = dict.fromkeys(("/health/ready", "/v2/health/ready"), self._ready)
        live = dict.fromkeys(("/health", "/health/live", "/v2/health/live"), _live)
        relayed = {api.path: self._relayed_get for api in INFERENCE_GETS if not api.has_model}
        return {
            **{path: partial(self._local, page) for path, page in _PAGES.items()},
            **ready,
            **live,
            **relayed,
            "/metrics": self._metrics,
            "/openapi.json": _openapi,
            "/docs": _docs,
            **{f"/v2/models/{MODEL}/{what}": self._oip_model for what in rest_local.OIP_EXTRAS},
            # Last, since a model's name may have slashes.
            "/v2/models/{oip_model}": self._oip_model,
        }

    async def serve(self, exchange: Exchange) -> None:
        """Respond to a request; to one that fails, with an error in the dialect of its path.

        Raises ClientDisconnected.
        """
        http = HttpRequest(exchange, self._parts.cors)
        try:
            if (preflight := self._preflight(http)) is not None:
                send(http, 204, preflight, b"")
                return
            await self._served_by(http)(http)
        except errors.AutoGLMError as error:
            errors.forget_frames(error)
            send_error(http, error)
        except ClientDisconnected:
            raise
        except Exception as error:
            _log.error("unexpected error on %s", http.path, exc_info=error)
            send_error(http, errors.Internal(str(error)))

    def reject(self, exchange: Exchange, code: int, why: str) -> None:
        """Respond to a request that is not valid HTTP, or on a connection over the limit."""
        send_error(HttpRequest(exchange, self._parts.cors), protocol_error(code, why))

    def _served_by(self, http: HttpRequest) -> Serve:
        """Return the request's function and set its route. Raises an AutoGLMError."""
        routed, allowed = http.routed, set[str]()
        exact = self.routes.get(routed)
        if exact is not None and exact.pattern.groups == 0 and http.method in exact.methods:
            http.route = f"{http.method} {routed}"
            return exact.methods[http.method]
        for route in (exact,) if exact is not None else self._templates:
            found = route.pattern.fullmatch(routed)
            if found is None:
                continue
            if (serve := route.methods.get(http.method)) is not None:
                http.route = f"{http.method} {route.path}"
                http.name = unquoted(found[1]) if found.lastindex else ""
                return serve
            allowed |= route.methods.keys()
        if not allowed:
            raise self._unknown(http.path)
        methods = ", ".join(sorted(allowed))
        error = MethodNotAllowed(f"{http.method} is not allowed on {http.path}; use {methods}")
        error.headers = {"allow": methods}
        raise error

    def _unknown(self, path: str) -> errors.AutoGLMError:
        if reason := DENIED.get(path):
            return http_errors.UnknownPath(f"{path} is not served: it {reason}")
        there_are = ", ".join(sorted(self.routes))
        return http_errors.UnknownPath(f"no path {path[:100]!r}; there are: {there_are}")

    def _preflight(self, http: HttpRequest) -> dict[str, str] | None:
        """Return the headers of the response to a CORS preflight, which has no credential."""
        return self._parts.cors.preflight(http.headers) if http.method == "OPTIONS" else None

    async def _relayed(self, http: HttpRequest) -> None:
        request = request_of(http, self._parts.bounds)
        await self._start.wait()
        await respond(http, request, self._parts.pipeline)

    async def _relayed_get(self, http: HttpRequest) -> None:
        """Forward a GET for the model that the query names, or for the only one."""
        info = RequestInfo(Operation.TOKENIZE, http.query("model"), billing=Billing.FREE)
        await self._forwarded(http, info, http.target)

    async def _stored(self, http: HttpRequest) -> None:
        """Forward a request for a stored response; its id determines the pod."""
        info = RequestInfo(Operation.CHAT, "", billing=Billing.FREE, stored=http.name)
        await self._forwarded(http, info, http.target)

    async def _oip_model(self, http: HttpRequest) -> None:
        rest = http.path.removeprefix("/v2/models/")
        name, what = rest_local.oip_get(rest, self._parts.snapshot().models)
        if not what:
            target = http.target if rest == name else f"/v2/models/{quote(name)}"
            info = RequestInfo(Operation.INFER, name, billing=Billing.FREE)
            await self._forwarded(http, info, target)
            return
        http.name = name
        page = partial(rest_local.oip_unimplemented, what=what)
        await self._local(rest_local.oip_model_ready if what == "ready" else page, http)

    async def _forwarded(self, http: HttpRequest, info: RequestInfo, target: str) -> None:
        request = replace(request_of(http, self._parts.bounds, info), target=target)
        await respond(http, request, self._parts.pipeline)

    async def _local(self, page: Page, http: HttpRequest) -> None:
        name = http.name.rstrip("/")

        def local_page(request: GatewayRequest) -> Response:
            return json_body(page(visible(self._parts.snapshot(), request.principal), name))

        request = request_of(http, self._parts.bounds, RequestInfo(Operation.INFER, name))
        await respond(http, request, self._parts.local(local_page))

    async def _ready(self, http: HttpRequest) -> None:
        ready, details = self._parts.ready()
        send_json(http, 200 if ready else 503, {"ready": ready, **details})

    async def _metrics(self, http: HttpRequest) -> None:
        page = await asyncio.to_thread(generate_latest, self._parts.registry)
        send(http, 200, {"content-type": CONTENT_TYPE_LATEST}, page)


async def _live(http: HttpRequest) -> None:
    send_json(http, 200, {"live": True})


async def _openapi(http: HttpRequest) -> None:
    send(http, 200, {"content-type": JSON}, rest_local.openapi())


async def _docs(http: HttpRequest) -> None:
    send(http, 200, docs_page.HEADERS, docs_page.docs_page(rest_local.openapi()))


def _pairs(named: Iterable[str]) -> Iterable[tuple[str, str]]:
    """Return the names within a path, each with the text behind it."""
    found = iter(named)
    return zip(found, found, strict=True)
