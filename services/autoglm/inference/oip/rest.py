"""The Open Inference Protocol over REST, in front of the engine's own OpenAI app.

Takes its own paths under /v2 and hands every other request to the app untouched. Never forwards,
never retries. `app` puts it on the HTTP port.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import TypeVar

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route, Router

from autoglm.common import errors, rpc, status
from autoglm.common.status import usage_field
from autoglm.inference.engine import AsgiApp, Engine, Receive, Scope, Send
from autoglm.inference.http.asgi import call_of, guarded, read_body
from autoglm.inference.http.bounded_http import abridged
from autoglm.inference.oip import json_codec, responses
from autoglm.inference.oip.request import Infer
from autoglm.inference.oip.responses import Piece
from autoglm.inference.prediction import predict
from autoglm.inference.requests import check
from autoglm.validation import http_errors
from autoglm.validation.oip import infer_path
from autoglm.validation.scan.reading import read_abridged

BINARY_HEADER = "inference-header-content-length"
_MODEL = "/v2/models/{model:path}"
T = TypeVar("T")


def with_oip(
    engine: Engine,
    app: AsgiApp,
    ready: Callable[[], bool],
    max_body_bytes: int = rpc.MAX_MESSAGE_BYTES,
) -> AsgiApp:
    """Return an app that serves the protocol's paths and leaves all others to `app`."""
    api = _OipApi(engine, ready, max_body_bytes)
    # Before the model's own path come those that it would match as well.
    routes = [
        Route("/v2", guarded(api.server)),
        Route("/v2/health/live", guarded(api.live)),
        Route("/v2/health/ready", guarded(api.ready)),
        Route("/v2/inference", guarded(api.predict), methods=["POST"]),
        Route(f"{_MODEL}/infer", guarded(api.infer), methods=["POST"]),
        Route(f"{_MODEL}/generate", guarded(api.generate), methods=["POST"]),
        Route(f"{_MODEL}/generate_stream", guarded(api.generate_stream), methods=["POST"]),
        Route(f"{_MODEL}/ready", guarded(api.model_ready)),
        Route(_MODEL, guarded(api.model)),
    ]
    router = Router(routes, redirect_slashes=False, default=app)

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        ours = scope["type"] == "http" and scope["path"].startswith("/v2")
        await (router if ours else app)(scope, receive, send)

    return serve


class _OipApi:
    def __init__(self, engine: Engine, ready: Callable[[], bool], max_body_bytes: int) -> None:
        self._engine = engine
        self._ready = ready
        self._max_body_bytes = max_body_bytes

    async def server(self, request: Request) -> Response:
        return _json(request, json_codec.server())

    async def live(self, request: Request) -> Response:
        return _json(request, {"live": True})

    async def ready(self, request: Request) -> Response:
        ready = self._ready()
        return _json(request, {"ready": ready}, 200 if ready else 503)

    async def model(self, request: Request) -> Response:
        model = responses.described(self._engine, request.path_params["model"])
        return _json(request, json_codec.metadata(model))

    async def model_ready(self, request: Request) -> Response:
        model = responses.described(self._engine, request.path_params["model"])
        ready = self._ready()
        return _json(request, {"name": model.name, "ready": ready}, 200 if ready else 503)

    async def infer(self, request: Request) -> Response:
        body, binary = await self._checked_body(request)
        infer = json_codec.infer_request(_model_of(request), body, binary)
        piece = await self._whole(request, infer)
        return _counted(request, json_codec.infer_response(infer, piece.text), piece)

    async def generate(self, request: Request) -> Response:
        body, _ = await self._checked_body(request)
        infer = json_codec.generate_request(_model_of(request), body)
        piece = await self._whole(request, infer)
        return _counted(request, json_codec.generate_response(infer, piece.text), piece)

    async def generate_stream(self, request: Request) -> Response:
        """Wait for the first piece, so that a failure before it has a status of its own."""
        body, _ = await self._checked_body(request)
        infer = json_codec.generate_request(_model_of(request), body)
        engine_input = responses.engine_request_of(self._engine, infer)
        call = call_of(request)
        pieces = responses.pieces(self._engine, engine_input, call)
        first = await _unless_gone(request, anext(pieces))
        events = _events(infer, first, pieces, call.request_id, request.scope["path"])
        headers = {status.REQUEST_ID: call.request_id, "cache-control": "no-cache"}
        return StreamingResponse(events, media_type="text/event-stream", headers=headers)

    async def predict(self, request: Request) -> Response:
        body, _ = await self._checked_body(request)
        engine_input = json_codec.predict_request(body)
        predicted = await _unless_gone(
            request, predict(self._engine, engine_input, call_of(request))
        )
        return _json(request, json_codec.predict_response(predicted))

    async def _whole(self, request: Request, infer: Infer) -> Piece:
        engine_input = responses.engine_request_of(self._engine, infer)
        return await _unless_gone(
            request, responses.whole(self._engine, engine_input, call_of(request))
        )

    async def _checked_body(self, request: Request) -> tuple[bytes, bytes]:
        """Return the JSON, validated, and the tensors behind it."""
        whole = await read_body(request, self._max_body_bytes)
        body, binary = json_codec.split(whole, request.headers.get(BINARY_HEADER))
        path = request.scope["path"]
        check(self._engine, await read_abridged(path, abridged(request.scope, body)))
        return body, binary


def _model_of(request: Request) -> str:
    """Return the model as the validator reads it, which knows versions in paths."""
    return infer_path(request.scope["path"]) or ""


async def _unless_gone(request: Request, work: Awaitable[T]) -> T:
    """Returns the result, or raises ClientDisconnect once the client has disconnected."""

    async def disconnected() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            continue

    wanted = asyncio.ensure_future(work)
    gone = asyncio.create_task(disconnected())
    try:
        await asyncio.wait((wanted, gone), return_when=asyncio.FIRST_COMPLETED)
        if not wanted.done():
            raise ClientDisconnect
        return wanted.result()
    finally:
        # The engine's request ends before this does.
        wanted.cancel()
        gone.cancel()
        await asyncio.wait((wanted, gone))


async def _events(
    infer: Infer, first: Piece, rest: AsyncGenerator[Piece, None], request_id: str, path: str
) -> AsyncGenerator[bytes, None]:
    async with aclosing(rest):
        yield _event(json_codec.generate_event(infer, first))
        try:
            async for piece in rest:
                yield _event(json_codec.generate_event(infer, piece))
        except errors.AutoGLMError as error:
            yield http_errors.stream_event(error, request_id, path)


def _event(payload: object) -> bytes:
    return b"data: " + msgspec.json.encode(payload) + b"\n\n"


def _counted(request: Request, payload: object, piece: Piece) -> Response:
    """Respond with the usage as a header, since the protocol has no field for it."""
    response = _json(request, payload)
    if piece.usage is not None:
        name, value = usage_field(piece.usage)
        response.headers[name] = value
    return response


def _json(request: Request, payload: object, code: int = 200) -> Response:
    headers = {status.REQUEST_ID: call_of(request).request_id}
    body = msgspec.json.encode(payload)
    return Response(body, code, headers, media_type="application/json")
