"""Reads the bodies of REST requests within bounds, before the engine's app builds objects of them.

ASGI middleware in front of all others. A body that exceeds a bound is rejected here; any other one
is passed on as it came, with what is needed to validate and name it in `scope`; white space that
makes up much of a body is left out. Forms and uploads pass unread.
"""

from __future__ import annotations

from autoglm.common import errors, rpc
from autoglm.inference.engine import AsgiApp, Receive, Scope, Send
from autoglm.inference.http.asgi import ReceivedBody, again, reject
from autoglm.validation.bounds import Bounds
from autoglm.validation.scan.abridged import NOTHING, cut_of
from autoglm.validation.scan.reading import abridge

ABRIDGED = "autoglm.abridged"
BINARY_HEADER = b"inference-header-content-length"
_FORMS = (b"multipart/", b"application/x-www-form-urlencoded")


def abridged(scope: Scope, body: bytes) -> bytes:
    """Return the abridged form of this body, which is validated in its place."""
    found: bytes = scope.get(ABRIDGED, body)
    return found


class BoundedHttp:
    def __init__(self, app: AsgiApp, bounds: Bounds, max_body_bytes: int) -> None:
        self._app = app
        self._bounds = bounds
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        if headers.get(b"content-type", b"").lower().startswith(_FORMS):
            await self._app(scope, receive, send)
            return
        received, is_whole = ReceivedBody(), False
        try:
            while not is_whole:
                message = await receive()
                received.add(message.get("body", b""))
                if received.size > self._max_body_bytes:
                    limit = self._max_body_bytes
                    raise errors.RequestTooLarge(f"the body has more than {limit} bytes; send less")
                if message["type"] != "http.request":
                    break
                is_whole = not message.get("more_body", False)
            body = received.value()
            if is_whole:
                part: bytes | memoryview = body
                length = headers.get(BINARY_HEADER, b"")
                # Tensors may stand behind the JSON; an invalid length is rejected by the app.
                if length.isdigit() and len(length) <= 12 and int(length) < len(body):
                    part = memoryview(body)[: int(length)]
                short = await abridge(part, self._bounds)
                scope = {**scope, ABRIDGED: short}
                if part is body and cut_of(short) == NOTHING:
                    body = short
        except errors.AutoGLMError as error:
            texts = [(k.decode("latin-1"), v.decode("latin-1")) for k, v in scope["headers"]]
            request_id = rpc.rpc_from_metadata(scope["path"], texts).request_id
            await reject(send, error, request_id, scope["path"])
            return
        await self._app(scope, again(body, receive, is_whole=is_whole), send)
