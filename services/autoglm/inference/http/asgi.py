"""Bodies of requests, whole responses and errors over ASGI, for the pod's apps and middleware."""

from __future__ import annotations

import io
from collections.abc import Awaitable, Callable

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from autoglm.common import rpc
from autoglm.common.errors import AutoGLMError, RequestTooLarge
from autoglm.inference.engine import EngineRequest, Message, Receive, Send
from autoglm.validation.http_errors import to_http

Endpoint = Callable[[Request], Awaitable[Response]]
# As nginx logs a request whose client closed the connection.
_CLOSED = 499


class ReceivedBody:
    """A body as it arrives. Never copied as a whole, which would stop the event loop."""

    def __init__(self) -> None:
        self.size = 0
        self._first = b""
        # Grows in place, and gives its bytes without a copy.
        self._joined = io.BytesIO()

    def add(self, chunk: bytes) -> None:
        if not self.size:
            self._first = chunk
        elif chunk:
            if not self._joined.tell():
                self._joined.write(self._first)
            self._joined.write(chunk)
        self.size += len(chunk)

    def value(self) -> bytes:
        return self._joined.getvalue() if self._joined.tell() else self._first


async def whole(receive: Receive) -> bytes:
    """Return the whole body, or what came of it before the client disconnected."""
    body = ReceivedBody()
    while True:
        message = await receive()
        body.add(message.get("body", b""))
        if message["type"] != "http.request" or not message.get("more_body", False):
            return body.value()


def again(body: bytes, receive: Receive, *, is_whole: bool = True) -> Receive:
    """Return a `receive` of the body that was read, then of what is still to come."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": not is_whole}]

    async def next_message() -> Message:
        return messages.pop() if messages else await receive()

    return next_message


async def respond(send: Send, code: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    """Send a whole response; its content-length is added to the headers."""
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": code, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body})


async def reject(send: Send, error: AutoGLMError, request_id: str, path: str) -> None:
    """Send an error in the dialect of the path."""
    rejection = to_http(error, request_id, path)
    headers = [(k.encode(), v.encode("latin-1")) for k, v in rejection.headers.items()]
    await respond(send, rejection.status, headers, rejection.body)


def guarded(endpoint: Endpoint) -> Endpoint:
    """Return an endpoint that renders our errors in the dialect of the path."""

    async def guard(request: Request) -> Response:
        path = request.scope["path"]
        # Made once, so that every part of the response has the same id.
        known = rpc.rpc_from_metadata(path, request.headers.items())
        request.state.call = EngineRequest(known.request_id, known.trace_headers)
        try:
            return await endpoint(request)
        except AutoGLMError as error:
            failed = to_http(error, known.request_id, path)
            return Response(failed.body, failed.status, failed.headers)
        except ClientDisconnect:
            return Response(status_code=_CLOSED)

    return guard


def call_of(request: Request) -> EngineRequest:
    """Return the engine's request of a `guarded` endpoint."""
    call: EngineRequest = request.state.call
    return call


async def read_body(request: Request, limit: int | None = None) -> bytes:
    """Return the body of a request. Raises RequestTooLarge beyond `limit` bytes."""
    body = ReceivedBody()
    async for chunk in request.stream():
        body.add(chunk)
        if limit is not None and body.size > limit:
            raise RequestTooLarge(f"the body has more than {limit} bytes; send less")
    return body.value()
