"""The gateway's REST port: OpenAI's API, the Open Inference Protocol over REST, probes, metrics.

Decodes HTTP requests, passes them to the pipeline and writes the responses. Decides nothing about
models, endpoints or retries; responses are forwarded as bytes. Built by `app`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, cast
from urllib.parse import quote

from aiohttp import web
from msgspec.structs import replace
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from autoglm.common import errors, status
from autoglm.common.admin_server import Readiness
from autoglm.gateway.edges import rest_local
from autoglm.gateway.edges.cors import Cors
from autoglm.gateway.edges.rest_request import Bounds, canonical, expect, request_id_of, request_of
from autoglm.gateway.edges.rest_response import (
    JSON,
    error_response,
    json_body,
    json_response,
    respond,
)
from autoglm.gateway.edges.slow_client import SLOW_READER_SECONDS
from autoglm.gateway.edges.start_throttle import StartThrottle
from autoglm.gateway.endpoints.snapshot import Snapshot, visible
from autoglm.gateway.request.request import GatewayRequest, Handler, RequestRecord, Response
from autoglm.validation import Billing, Operation, RequestInfo, http_errors
from autoglm.validation.http_apis import (
    DENIED,
    INFERENCE_GETS,
    INFERENCE_POSTS,
    MODEL,
    STORED,
)

# The handler parses what follows a model's name, which may have slashes.
_OIP_MODEL = "/v2/models/{model:(?!.*/(?:infer|generate|generate_stream)/?$).+}"
# `render` is a path of its own, and an `allow` header must not list what a stored response allows.
_STORED_ID = "{response_id:(?!render/?$)[^/]+}"
# In one round of the event loop, of some hundred microseconds each.
_BEGIN_AT_ONCE = 8
_log = logging.getLogger("autoglm.gateway")


class MethodNotAllowed(errors.AutoGLMError):
    reason = "METHOD_NOT_ALLOWED"
    grpc_status = "UNIMPLEMENTED"
    http_status = 405


@dataclass(frozen=True, slots=True)
class RestParts:
    """Dependencies of the edge. `local` wraps handlers of the gateway's own responses."""

    pipeline: Handler
    local: Callable[[Handler], Handler]
    snapshot: Callable[[], Snapshot]
    ready: Readiness
    registry: CollectorRegistry
    bounds: Bounds
    slow_reader_seconds: float = SLOW_READER_SECONDS
    cors: Cors = Cors()


Page = Callable[[Snapshot, str], Mapping[str, object]]
Get = Callable[[web.Request], Awaitable[web.StreamResponse]]
_PAGES: Mapping[str, Page] = {
    "/v1/models": lambda snapshot, _: rest_local.models(snapshot),
    "/v1/models/{model:.+}": rest_local.model,
    "/v2": lambda *_: rest_local.oip_server(),
    "/version": lambda *_: rest_local.version(),
    "/": lambda *_: rest_local.index(),
}


class RestEdge:
    """Handlers of all routes."""

    def __init__(self, parts: RestParts) -> None:
        self._parts = parts
        self._start = StartThrottle(_BEGIN_AT_ONCE)
        self.draining = False

    def app(self) -> web.Application:
        app = web.Application(middlewares=[self._guard])
        app.on_response_prepare.append(self._complete_head)
        for api in INFERENCE_POSTS:
            for path in (api.path, f"{api.path}/"):
                app.router.add_post(path, self._relayed, expect_handler=expect)
        for method, path in STORED:
            path = path.replace("{response_id}", _STORED_ID)
            for each in (path, f"{path}/"):
                app.router.add_route(method, each, self._stored)
        for path, get in self._gets().items():
            app.router.add_get(path, get)
            if path != "/":
                app.router.add_get(f"{path}/", get)
        return app

    def _gets(self) -> Mapping[str, Get]:
        ready = dict.fromkeys(("/health/ready", "/v2/health/ready"), self._ready)
        live = dict.fromkeys(("/health", "/health/live", "/v2/health/live"), _live)
        relayed = {api.path: self._relayed_get for api in INFERENCE_GETS if not api.has_model}
        return {
            **{path: self._local(page) for path, page in _PAGES.items()},
            **ready,
            **live,
            **relayed,
            "/metrics": self._metrics,
            "/openapi.json": _openapi,
            **{f"/v2/models/{MODEL}/{what}": self._oip_model for what in rest_local.OIP_EXTRAS},
            # Last, since a model's name may have slashes.
            _OIP_MODEL: self._oip_model,
        }

    async def _relayed(self, http_request: web.Request) -> web.StreamResponse:
        request = request_of(http_request, _route(http_request), self._parts.bounds)
        await self._start.wait()
        return await respond(
            http_request, request, self._parts.pipeline, self._parts.slow_reader_seconds
        )

    async def _relayed_get(self, http_request: web.Request) -> web.StreamResponse:
        """Forward a GET for the model that the query names, or for the only one."""
        info = RequestInfo(
            Operation.TOKENIZE, http_request.query.get("model", ""), billing=Billing.FREE
        )
        return await self._forwarded(http_request, info, canonical(str(http_request.rel_url)))

    async def _stored(self, http_request: web.Request) -> web.StreamResponse:
        """Forward a request for a stored response; its id determines the pod."""
        name = http_request.match_info["response_id"]
        info = RequestInfo(Operation.CHAT, "", billing=Billing.FREE, stored=name)
        return await self._forwarded(http_request, info, canonical(str(http_request.rel_url)))

    async def _oip_model(self, http_request: web.Request) -> web.StreamResponse:
        rest = http_request.path.removeprefix("/v2/models/").rstrip("/")
        models = self._parts.snapshot().models
        name, what = rest_local.oip_get(rest, models)
        if not what:
            target = canonical(str(http_request.rel_url))
            target = target if rest == name else f"/v2/models/{quote(name)}"
            return await self._forwarded(
                http_request, RequestInfo(Operation.INFER, name, billing=Billing.FREE), target
            )
        page = partial(rest_local.oip_unimplemented, what=what)
        return await self._local(rest_local.oip_model_ready if what == "ready" else page, name)(
            http_request
        )

    async def _forwarded(
        self, http_request: web.Request, info: RequestInfo, target: str
    ) -> web.StreamResponse:
        request = replace(
            request_of(http_request, _route(http_request), self._parts.bounds, info), target=target
        )
        return await respond(
            http_request, request, self._parts.pipeline, self._parts.slow_reader_seconds
        )

    def _local(self, page: Page, model: str = "") -> Get:
        async def handle(http_request: web.Request) -> web.StreamResponse:
            name = model or http_request.match_info.get("model", "").rstrip("/")

            @asynccontextmanager
            async def response(
                request: GatewayRequest, _: RequestRecord
            ) -> AsyncIterator[Response]:
                seen = visible(self._parts.snapshot(), request.principal)
                yield json_body(page(seen, name))

            info = RequestInfo(Operation.INFER, name)
            request = request_of(http_request, _route(http_request), self._parts.bounds, info)
            handler = self._parts.local(cast(Handler, response))
            return await respond(http_request, request, handler, self._parts.slow_reader_seconds)

        return handle

    async def _ready(self, _: web.Request) -> web.Response:
        ready, details = self._parts.ready()
        return json_response(200 if ready else 503, {"ready": ready, **details})

    async def _metrics(self, _: web.Request) -> web.Response:
        page = await asyncio.to_thread(generate_latest, self._parts.registry)
        return web.Response(body=page, headers={"content-type": CONTENT_TYPE_LATEST})

    @web.middleware
    async def _guard(self, request: web.Request, handler: Any) -> web.StreamResponse:
        """Write unknown paths and errors of handlers in the error dialect of the path."""
        try:
            if (preflight := self._preflight(request)) is not None:
                return preflight
            http_response: web.StreamResponse = await handler(request)
        except web.HTTPMethodNotAllowed as rejected:
            http_response = _not_allowed(request, rejected)
        except web.HTTPNotFound:
            http_response = _unknown(request)
        except errors.AutoGLMError as error:
            http_response = error_response(request, error)
        except Exception as error:
            _log.error("unexpected error on %s", request.path, exc_info=error)
            http_response = error_response(request, errors.Internal(str(error)))
        if self.draining:
            # For a stream that began before; later ones have `connection: close` in their head.
            http_response.force_close()
        return http_response

    def _preflight(self, http_request: web.Request) -> web.Response | None:
        """Return the response to a CORS preflight request, which has no credential."""
        if http_request.method != "OPTIONS":
            return None
        headers = self._parts.cors.preflight(http_request.headers)
        return None if headers is None else web.Response(status=204, headers=headers)

    async def _complete_head(
        self, http_request: web.Request, http_response: web.StreamResponse
    ) -> None:
        if status.REQUEST_ID not in http_response.headers:
            request_id = request_id_of(http_request.headers)
            http_response.headers.update(
                http_errors.request_id_headers(request_id, http_request.path)
            )
        origin = http_request.headers.get("origin", "")
        for name, value in self._parts.cors.response_headers(origin).items():
            given = http_response.headers.get(name) if name == "vary" else None
            http_response.headers[name] = f"{given}, {value}" if given and given != value else value
        if self.draining:
            http_response.headers["connection"] = "close"


def _route(http_request: web.Request) -> str:
    resource = http_request.match_info.route.resource
    return (
        f"{http_request.method} {canonical(resource.canonical if resource else http_request.path)}"
    )


def _unknown(http_request: web.Request) -> web.Response:
    path = canonical(http_request.path)
    if reason := DENIED.get(path):
        return error_response(
            http_request, http_errors.UnknownPath(f"{path} is not served: it {reason}")
        )
    resources = http_request.app.router.resources()
    there_are = ", ".join(sorted({canonical(r.canonical) for r in resources}))
    return error_response(
        http_request, http_errors.UnknownPath(f"no path {path[:100]!r}; there are: {there_are}")
    )


def _not_allowed(http_request: web.Request, rejected: web.HTTPMethodNotAllowed) -> web.Response:
    allowed = ", ".join(sorted(rejected.allowed_methods))
    error = MethodNotAllowed(
        f"{http_request.method} is not allowed on {http_request.path}; use {allowed}"
    )
    http_response = error_response(http_request, error)
    http_response.headers["allow"] = allowed
    return http_response


async def _live(_: web.Request) -> web.Response:
    return json_response(200, {"live": True})


async def _openapi(_: web.Request) -> web.Response:
    return web.Response(body=rest_local.openapi(), content_type=JSON)
