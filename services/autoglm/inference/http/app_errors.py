"""Renders the errors of the engine's app in the dialect of the path. Used by `http_port`.

vLLM sends some errors of the Messages API in OpenAI's shape, and frameworks have their own for
unknown paths.
"""

from __future__ import annotations

from autoglm.common.errors import Unimplemented
from autoglm.inference.engine import Message, Send
from autoglm.validation.http_apis import dialect_of, inference_post
from autoglm.validation.http_errors import SHOULD_RETRY, UnknownPath, to_http, translated

# A longer one is passed on as it is.
_MAX_BYTES = 64 * 1024
# What FastAPI and Starlette send where an app has no such route.
_NO_ROUTE = (b'{"detail":"Not Found"}', b"Not Found")


class AppErrors:
    """An ASGI `send` that passes everything but errors on untouched."""

    def __init__(self, send: Send, path: str, request_id: str) -> None:
        self._send = send
        self._path = path
        self._request_id = request_id
        self._start: Message | None = None
        self._body = bytearray()

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start" and message["status"] >= 400:
            self._start = message
        elif self._start is None or message["type"] != "http.response.body":
            await self._send(message)
        else:
            await self._take(self._start, message)

    async def _take(self, start: Message, message: Message) -> None:
        self._body += message.get("body", b"")
        more = message.get("more_body", False)
        if more and len(self._body) <= _MAX_BYTES:
            return
        self._start, body = None, bytes(self._body)
        if not more:
            body = self._rendered(body, start["status"])
            start = {**start, "headers": _headers(start, len(body))}
        await self._send(start)
        await self._send({"type": "http.response.body", "body": body, "more_body": more})

    def _rendered(self, body: bytes, status: int) -> bytes:
        if body in _NO_ROUTE:
            return to_http(_no_route(self._path), self._request_id, self._path).body
        return translated(body, status, self._request_id, dialect_of(self._path))


def _no_route(path: str) -> UnknownPath:
    """The app has the routes that its model can serve."""
    api = inference_post(path)
    needs = api.needs if api else ""
    way_out = f"; it needs {needs}" if needs else ""
    return UnknownPath(f"the model of this pod does not serve {path[:100]}{way_out}")


def _headers(start: Message, length: int) -> list[tuple[bytes, bytes]]:
    ours = [(b"content-length", str(length).encode()), (b"content-type", b"application/json")]
    if start["status"] == Unimplemented.http_status:
        ours.append((SHOULD_RETRY.encode(), b"false"))
    names = {name for name, _ in ours}
    kept = [(k, v) for k, v in start.get("headers", ()) if k.lower() not in names]
    return [*kept, *ours]
