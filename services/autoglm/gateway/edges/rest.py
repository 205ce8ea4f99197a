"""The gateway's REST port: OpenAI's API, the Open Inference Protocol over REST, probes, metrics.

Reads requests into calls, hands them to the layers, writes the replies. Decides nothing about
models, endpoints or retries; answers pass as bytes. Made by `app`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, cast
from urllib.parse import quote

import msgspec
from aiohttp import web
from msgspec.structs import replace
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from autoglm.common import errors, status
from autoglm.common.http.admin import Readiness
from autoglm.gateway.edges import rest_local
from autoglm.gateway.edges.cors import Cors
from autoglm.gateway.edges.rest_request import Bounds, call_of, canonical, expect, request_id_of
from autoglm.gateway.edges.slow_client import SlowReader
from autoglm.gateway.edges.start_throttle import StartThrottle
from autoglm.gateway.endpoints.snapshot import Snapshot, visible
from autoglm.gateway.request.openai_usage import UsageReader
from autoglm.gateway.request.request import GatewayRequest, Handler, RequestRecord, Response
from autoglm.gateway.request.whole_events import WholeEvents, is_event_stream
from autoglm.validation import Billing, Operation, RequestInfo, http_errors
from autoglm.validation.http_apis import (
    DENIED,
    INFERENCE_GETS,
    INFERENCE_POSTS,
    MODEL,
    STORED,
)

# What follows a model's name, which may have slashes, is told apart by the handler.
_OIP_MODEL = "/v2/models/{model:(?!.*/(?:infer|generate|generate_stream)/?$).+}"
# `render` is a path of its own, and an `allow` header must not list what a stored response allows.
_STORED_ID = "{response_id:(?!render/?$)[^/]+}"
_JSON = "application/json"
# Smaller answers gain nothing from compression.
GZIP_FROM_BYTES = 1024
# Answers of known length up to this are sent whole, so that a broken one is a clean error.
_WHOLE_BYTES = 1024 * 1024
# In one round of the event loop, of some hundred microseconds each.
_BEGIN_AT_ONCE = 8
_log = logging.getLogger("autoglm.gateway")


class MethodNotAllowed(errors.AutoGLMError):
    reason = "METHOD_NOT_ALLOWED"
    grpc_status = "UNIMPLEMENTED"
    http_status = 405


@dataclass(frozen=True, slots=True)
class RestParts:
    """What the edge stands on. `local` wraps the handler of an answer of the gateway's own."""

    relay: Handler
    local: Callable[[Handler], Handler]
    snapshot: Callable[[], Snapshot]
    ready: Readiness
    registry: CollectorRegistry
    bounds: Bounds
    slow_reader_seconds: float = 60.0
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
        self._doorstep = StartThrottle(_BEGIN_AT_ONCE)
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

    async def _relayed(self, request: web.Request) -> web.StreamResponse:
        call = call_of(request, _route(request), self._parts.bounds)
        await self._doorstep.cross()
        return await _answer(request, call, self._parts.relay, self._parts.slow_reader_seconds)

    async def _relayed_get(self, request: web.Request) -> web.StreamResponse:
        """Of a model that the query names, or of the one that there is."""
        info = RequestInfo(Operation.TOKENIZE, request.query.get("model", ""), billing=Billing.FREE)
        return await self._forwarded(request, info, canonical(str(request.rel_url)))

    async def _stored(self, request: web.Request) -> web.StreamResponse:
        """About a response that a pod has stored; which one, its id tells the layers."""
        name = request.match_info["response_id"]
        info = RequestInfo(Operation.CHAT, "", billing=Billing.FREE, stored=name)
        return await self._forwarded(request, info, canonical(str(request.rel_url)))

    async def _oip_model(self, request: web.Request) -> web.StreamResponse:
        rest = request.path.removeprefix("/v2/models/").rstrip("/")
        models = self._parts.snapshot().models
        name, what = rest_local.oip_get(rest, models)
        if not what:
            target = canonical(str(request.rel_url))
            target = target if rest == name else f"/v2/models/{quote(name)}"
            return await self._forwarded(
                request, RequestInfo(Operation.INFER, name, billing=Billing.FREE), target
            )
        page = partial(rest_local.oip_unimplemented, what=what)
        return await self._local(rest_local.oip_model_ready if what == "ready" else page, name)(
            request
        )

    async def _forwarded(
        self, request: web.Request, info: RequestInfo, target: str
    ) -> web.StreamResponse:
        call = replace(call_of(request, _route(request), self._parts.bounds, info), target=target)
        return await _answer(request, call, self._parts.relay, self._parts.slow_reader_seconds)

    def _local(self, page: Page, model: str = "") -> Get:
        async def handle(request: web.Request) -> web.StreamResponse:
            name = model or request.match_info.get("model", "").rstrip("/")

            @asynccontextmanager
            async def reply(call: GatewayRequest, _: RequestRecord) -> AsyncIterator[Response]:
                seen = visible(self._parts.snapshot(), call.principal)
                yield _json_reply(page(seen, name))

            info = RequestInfo(Operation.INFER, name)
            call = call_of(request, _route(request), self._parts.bounds, info)
            handler = self._parts.local(cast(Handler, reply))
            return await _answer(request, call, handler, self._parts.slow_reader_seconds)

        return handle

    async def _ready(self, _: web.Request) -> web.Response:
        ready, details = self._parts.ready()
        return _json_response(200 if ready else 503, {"ready": ready, **details})

    async def _metrics(self, _: web.Request) -> web.Response:
        page = await asyncio.to_thread(generate_latest, self._parts.registry)
        return web.Response(body=page, headers={"content-type": CONTENT_TYPE_LATEST})

    @web.middleware
    async def _guard(self, request: web.Request, handler: Any) -> web.StreamResponse:
        """Renders what no route took, and what went wrong in one, in the path's own dialect."""
        try:
            if (preflight := self._preflight(request)) is not None:
                return preflight
            response: web.StreamResponse = await handler(request)
        except web.HTTPMethodNotAllowed as refused:
            response = _not_allowed(request, refused)
        except web.HTTPNotFound:
            response = _unknown(request)
        except errors.AutoGLMError as error:
            response = _error_response(request, error)
        except Exception as error:
            _log.error("unexpected error on %s", request.path, exc_info=error)
            response = _error_response(request, errors.Internal(str(error)))
        if self.draining:
            # For a stream that had begun before; later ones have said so in their head.
            response.force_close()
        return response

    def _preflight(self, request: web.Request) -> web.Response | None:
        """The response to a browser's question about a request to come, which has no credential."""
        if request.method != "OPTIONS":
            return None
        headers = self._parts.cors.preflight(request.headers)
        return None if headers is None else web.Response(status=204, headers=headers)

    async def _complete_head(self, request: web.Request, response: web.StreamResponse) -> None:
        if status.REQUEST_ID not in response.headers:
            request_id = request_id_of(request.headers)
            response.headers.update(http_errors.request_id_headers(request_id, request.path))
        origin = request.headers.get("origin", "")
        for name, value in self._parts.cors.response_headers(origin).items():
            given = response.headers.get(name) if name == "vary" else None
            response.headers[name] = f"{given}, {value}" if given and given != value else value
        if self.draining:
            response.headers["connection"] = "close"


def _route(request: web.Request) -> str:
    resource = request.match_info.route.resource
    return f"{request.method} {canonical(resource.canonical if resource else request.path)}"


async def _answer(
    request: web.Request, call: GatewayRequest, handler: Handler, slow_reader_seconds: float
) -> web.StreamResponse:
    response: web.StreamResponse | None = None
    notes, events = RequestRecord(), WholeEvents()
    try:
        async with handler(call, notes) as reply, _closing(reply.chunks) as chunks:
            reader = _reader(call, notes, reply)
            if (length := _known_length(reply)) is not None and length <= _WHOLE_BYTES:
                body = b"".join([chunk async for chunk in chunks])
                if reader is not None:
                    reader.add(body)
                    notes.usage = reader.usage()
                return _whole(request, call, reply, body)
            response = _head(request, call, reply)
            if is_event_stream(reply.headers):
                chunks = _whole_events(chunks, events)
            with SlowReader(slow_reader_seconds) as slow:
                slow.begin()
                await _send(response.prepare(request))
                slow.end()
                async for chunk in chunks:
                    slow.begin()
                    await _send(response.write(chunk))
                    slow.end()
                    if reader is not None:
                        reader.add(chunk)
                slow.begin()
                await _send(response.write_eof())
            if reader is not None:
                notes.usage = reader.usage()
            return response
    except errors.AutoGLMError as error:
        errors.forget_frames(error)
        if response is None or not response.prepared:
            return _error_response(request, error, call.request_id)
        return await _end_broken(request, response, error, call, events.last)


async def _whole_events(chunks: AsyncIterator[bytes], events: WholeEvents) -> AsyncIterator[bytes]:
    async for chunk in chunks:
        if whole := events.feed(chunk):
            yield whole
    if rest := events.rest():
        yield rest


def _reader(call: GatewayRequest, notes: RequestRecord, reply: Response) -> UsageReader | None:
    """For the usage of a pod's response, where no layer reads it."""
    if notes.is_metered or call.continues or call.info is not None:
        return None
    info = notes.call.info if notes.call is not None else None
    if info is None or info.billing is Billing.FREE or reply.status >= 400:
        return None
    return UsageReader(is_stream=is_event_stream(reply.headers), headers=reply.headers)


def _closing(chunks: AsyncIterator[bytes]) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
    return cast(AbstractAsyncContextManager[AsyncIterator[bytes]], aclosing(cast(Any, chunks)))


async def _send(writing: Awaitable[object]) -> None:
    try:
        await writing
    except ConnectionError as error:
        raise errors.Cancelled("the caller went away") from error


def _known_length(reply: Response) -> int | None:
    length = next((v for k, v in reply.headers.items() if k.lower() == "content-length"), "")
    return int(length) if length.isdecimal() else None


def _headers(call: GatewayRequest, reply: Response) -> dict[str, str]:
    own = http_errors.request_id_headers(call.request_id, call.target)
    if reply.status == errors.Unimplemented.http_status:
        own[http_errors.SHOULD_RETRY] = "false"
    kept = {
        name: value
        for name, value in reply.headers.items()
        if name.lower() != "content-length" and name.lower() not in own
    }
    if is_event_stream(reply.headers):
        given = {name.lower() for name in kept}
        own |= {k: v for k, v in http_errors.STREAM_HEADERS.items() if k not in given}
    return kept | own


def _whole(
    request: web.Request, call: GatewayRequest, reply: Response, body: bytes
) -> web.Response:
    response = web.Response(body=body, status=reply.status, headers=_headers(call, reply))
    if len(body) >= GZIP_FROM_BYTES and _may_compress(request, reply):
        response.enable_compression(web.ContentCoding.gzip)
    return response


def _head(request: web.Request, call: GatewayRequest, reply: Response) -> web.StreamResponse:
    response = web.StreamResponse(status=reply.status, headers=_headers(call, reply))
    if response.content_type != http_errors.EVENT_STREAM and _may_compress(request, reply):
        response.enable_compression(web.ContentCoding.gzip)
    elif (length := _known_length(reply)) is not None:
        response.content_length = length
    return response


def _may_compress(request: web.Request, reply: Response) -> bool:
    encoded = any(name.lower() == "content-encoding" for name in reply.headers)
    wanted = request.headers.get("accept-encoding", "").lower().split(",")
    return not encoded and any(
        w.strip().split(";q=")[0] == "gzip" for w in wanted if ";q=0" not in w
    )


async def _end_broken(
    request: web.Request,
    response: web.StreamResponse,
    error: errors.AutoGLMError,
    call: GatewayRequest,
    before: bytes,
) -> web.StreamResponse:
    """An answer that has begun cannot become an error; it must not look whole either."""
    is_stream = response.content_type == http_errors.EVENT_STREAM
    if is_stream and not isinstance(error, errors.Cancelled):
        event = http_errors.stream_event(error, call.request_id, call.target, before)
        # A blank line first: what was sent last may be part of a very long event.
        await _send_or_leave(response.write(b"\n\n" + event))
        await _send_or_leave(response.write_eof())
    elif request.transport is not None:
        request.transport.abort()
    return response


async def _send_or_leave(writing: Awaitable[object]) -> None:
    """Nobody is left to tell when the client has gone as well."""
    try:
        await writing
    except ConnectionError as error:
        _log.debug("the client went away before the error reached it: %s", error)


def _error_response(
    request: web.Request, error: errors.AutoGLMError, request_id: str = ""
) -> web.Response:
    request_id = request_id or request_id_of(request.headers)
    answer = http_errors.to_http(error, request_id, request.path)
    response = web.Response(status=answer.status, headers=answer.headers, body=answer.body)
    if isinstance(error, errors.RequestTooLarge):
        response.force_close()
    return response


def _unknown(request: web.Request) -> web.Response:
    path = canonical(request.path)
    if reason := DENIED.get(path):
        return _error_response(
            request, http_errors.UnknownPath(f"{path} is not served: it {reason}")
        )
    resources = request.app.router.resources()
    there_are = ", ".join(sorted({canonical(r.canonical) for r in resources}))
    return _error_response(
        request, http_errors.UnknownPath(f"no path {path[:100]!r}; there are: {there_are}")
    )


def _not_allowed(request: web.Request, refused: web.HTTPMethodNotAllowed) -> web.Response:
    allowed = ", ".join(sorted(refused.allowed_methods))
    error = MethodNotAllowed(f"{request.method} is not allowed on {request.path}; use {allowed}")
    response = _error_response(request, error)
    response.headers["allow"] = allowed
    return response


def _json_reply(page: Mapping[str, object]) -> Response:
    body = msgspec.json.encode(page)

    async def chunks() -> AsyncIterator[bytes]:
        yield body

    return Response(chunks(), headers={"content-type": _JSON, "content-length": str(len(body))})


def _json_response(code: int, page: Mapping[str, object]) -> web.Response:
    return web.Response(status=code, body=msgspec.json.encode(page), content_type=_JSON)


async def _live(_: web.Request) -> web.Response:
    return _json_response(200, {"live": True})


async def _openapi(_: web.Request) -> web.Response:
    return web.Response(body=rest_local.openapi(), content_type=_JSON)
