"""Keeps the KV cache of one tenant apart from those of others.

A gateway sends a salt with each request of a tenant; the engine then shares cached blocks only
among requests of one salt. A salt that the client gives is combined with it, and never replaces it.
`HttpObserver` sets the salt for REST, the gRPC interceptor for gRPC; engines read it where they
meet the prompt. Requests without the header are unsalted.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from hashlib import sha256

from autoglm.common.rpc import Rpc, current_rpc

_DIGITS = 32
_current: ContextVar[str] = ContextVar("cache_salt", default="")


@contextmanager
def salted(salt: str) -> Iterator[None]:
    """Apply a REST request's salt while it is served."""
    token = _current.set(salt)
    try:
        yield
    finally:
        _current.reset(token)


def effective(given: str | None = None) -> str:
    """Return the salt of the request being served, or empty; `given` is the client's own."""
    tenant = _current.get() or current_rpc.get(Rpc()).cache_salt
    if not tenant:
        return given or ""
    # Fixed length, and no character that a cache behind the engine objects to.
    return sha256(f"{tenant}\0{given or ''}".encode("utf-8", "surrogatepass")).hexdigest()[:_DIGITS]
