"""Passes the gateway's block names of the prompt being served to the engine.

A gateway that follows the KV cache sends a salt with each request; names are then made here, by the
code that the gateway has made them with. Servicers set them for gRPC, `NamedHttp` for REST; the
engine takes them where it meets the prompt's tokens. Requests without a salt cost nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from string import hexdigits

from autoglm.common.errors import AutoGLMError
from autoglm.common.rpc import PREFIX_SALT, Rpc, current_rpc
from autoglm.inference.engine import AsgiApp, Receive, Scope, Send
from autoglm.inference.http.asgi import again, whole
from autoglm.inference.http.bounded_http import abridged
from autoglm.validation import RequestInfo
from autoglm.validation.prefix_hash import NO_PREFIX, Prefix
from autoglm.validation.scan.reading import read_abridged

_SALT_DIGITS = 16


@dataclass(slots=True)
class Naming:
    """`salt` is mixed into the names of `prefix`. Taken once: by the request's first prompt."""

    prefix: Prefix
    salt: int
    is_taken: bool = False


_current: ContextVar[Naming | None] = ContextVar("kv_naming", default=None)


def take() -> Naming | None:
    """Return the names for the prompt that the engine is about to process; None without any."""
    naming = _current.get()
    if naming is None or naming.is_taken or not naming.prefix.blocks:
        return None
    naming.is_taken = True
    return naming


def name(info: RequestInfo) -> None:
    """Give this gRPC call's prompt the names of its gateway."""
    salt = _salt(current_rpc.get(Rpc()).prefix_salt)
    _current.set(None if salt is None else Naming(info.prefix, salt))


@contextmanager
def named(prefix: Prefix, salt: int) -> Iterator[None]:
    token = _current.set(Naming(prefix, salt))
    try:
        yield
    finally:
        _current.reset(token)


class NamedHttp:
    """ASGI middleware: names the prompts of REST requests. Bodies up to a bound are read for it."""

    def __init__(self, app: AsgiApp, most_bytes: int) -> None:
        self._app = app
        self._most_bytes = most_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"]) if scope["type"] == "http" else {}
        salt = _salt(headers.get(PREFIX_SALT.encode(), b"").decode("latin-1"))
        length = headers.get(b"content-length", b"")
        is_named = salt is not None and scope["method"] == "POST" and length.isdigit()
        if salt is None or not is_named or int(length) > self._most_bytes:
            await self._app(scope, receive, send)
            return
        body, prefix = await whole(receive), NO_PREFIX
        # Whatever is wrong with the body is the app's to say.
        with suppress(AutoGLMError):
            prefix = (await read_abridged(scope["path"], abridged(scope, body))).prefix
        with named(prefix, salt):
            await self._app(scope, again(body, receive), send)


def _salt(text: str) -> int | None:
    if len(text) != _SALT_DIGITS or not set(text) <= set(hexdigits):
        return None
    return int(text, 16)
