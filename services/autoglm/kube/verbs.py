"""The verbs of the Kubernetes API, with timeouts, metrics and retries.

Each request has a timeout and a bounded number of attempts; a write begins only while this operator
leads.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any, Protocol

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt

from autoglm.api.labels import FIELD_MANAGER
from autoglm.api.shallow import shallow
from autoglm.common.pacing import Backoff
from autoglm.kube.transport import (
    APPLY,
    MERGE,
    NotLeading,
    Query,
    Refused,
    Request,
    TimedOut,
    Transport,
    Unreachable,
)
from autoglm.kube.write_limit import WriteSlots

_ATTEMPTS = 3
# Longer delays are left to the queue, so that no worker is blocked.
_LONGEST_WAIT = 2.0
_BACKOFF = Backoff(first=0.2, most=_LONGEST_WAIT, jitter=0.5)
# Randomness that no decision depends on.
_rng = Random()


@dataclass(frozen=True, slots=True)
class Limits:
    """Timeouts in seconds. `write` returns the timeout of a write that begins now, 0 where none
    may begin."""

    read: float
    write: Callable[[], float]
    slots: WriteSlots | None = None
    """Bounds the concurrent writes."""
    guard: Callable[[], AbstractAsyncContextManager[None]] = nullcontext
    """Wraps each write; cancels it when another operator may lead."""


@dataclass(slots=True)
class ApiCall:
    """The status code with which a request ended."""

    code: str = "200"


class ApiMetrics(Protocol):
    """Measures requests to the API server."""

    def api_call(self, verb: str) -> AbstractContextManager[ApiCall]:
        """Measure one request; the code inside sets the status code."""
        ...

    def watch_restarted(self, kind: str, reason: str) -> None:
        """Count a list of a kind that precedes a watch, by its cause."""
        ...


class Kube:
    """Sends requests by verb. Returns objects as JSON. Raises Refused, Unreachable, NotLeading."""

    def __init__(self, transport: Transport, metrics: ApiMetrics, limits: Limits) -> None:
        self._transport = transport
        self._metrics = metrics
        self._limits = limits

    async def get(self, path: str) -> bytes:
        return await self._send_object(Request("GET", path))

    async def page(self, path: str, query: Query) -> bytes:
        """Read one page of a list."""
        return await self._send(Request("GET", path, query))

    def lines(self, path: str, query: Query) -> AsyncIterator[bytes]:
        """Yield the lines of a watch, until the server ends it."""
        return self._transport.stream(Request("GET", path, query))

    async def apply(self, path: str, body: Mapping[str, Any], *, force: bool = False) -> bytes:
        query = (("fieldManager", FIELD_MANAGER), ("force", "true" if force else "false"))
        return await self._send_object(Request("PATCH", path, query, body, APPLY))

    async def merge(self, path: str, body: Mapping[str, Any]) -> bytes:
        query = (("fieldManager", FIELD_MANAGER),)
        return await self._send_object(Request("PATCH", path, query, body, MERGE))

    async def create(self, path: str, body: Mapping[str, Any]) -> bytes:
        query = (("fieldManager", FIELD_MANAGER),)
        return await self._send_object(Request("POST", path, query, body))

    async def replace(self, path: str, body: Mapping[str, Any]) -> bytes:
        query = (("fieldManager", FIELD_MANAGER),)
        return await self._send_object(Request("PUT", path, query, body))

    async def delete(self, path: str, uid: str) -> bytes:
        """Delete an object with this uid; its dependents are deleted in the background."""
        body = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "preconditions": {"uid": uid},
            "propagationPolicy": "Background",
        }
        return await self._send_object(Request("DELETE", path, (), body))

    async def _send_object(self, request: Request) -> bytes:
        """Send a request, and return the object with which the API server responds."""
        return shallow(await self._send(request))

    async def _send(self, request: Request) -> bytes:
        attempts = AsyncRetrying(
            stop=stop_after_attempt(_ATTEMPTS),
            wait=_wait,
            retry=retry_if_exception(partial(_is_transient, request)),
            reraise=True,
        )
        body: bytes = await attempts(self._attempt, request)
        return body

    async def _attempt(self, request: Request) -> bytes:
        if not request.is_write:
            return await self._exchange(request, self._limits.read)
        slots = self._limits.slots
        async with slots.slot(_collection(request.path)) if slots else nullcontext():
            timeout = self._limits.write()
            if timeout <= 0:
                raise NotLeading("this operator does not hold the lease")
            async with self._limits.guard():
                return await self._exchange(request, timeout)

    async def _exchange(self, request: Request, timeout: float) -> bytes:
        with self._metrics.api_call(request.method) as outcome:
            try:
                return await self._transport.send(request, timeout)
            except Refused as error:
                outcome.code = str(error.status)
                raise
            except Unreachable:
                outcome.code = "none"
                raise


def _is_transient(request: Request, error: BaseException) -> bool:
    if isinstance(error, Refused):
        if error.is_conflict and request.method == "PATCH":
            # A concurrent write; conflicts over fields have causes, and one over a version that the
            # request names stays.
            metadata = (request.body or {}).get("metadata") or {}
            return not error.causes and "resourceVersion" not in metadata
        return error.is_transient and (error.retry_after or 0) <= _LONGEST_WAIT
    # A write that timed out may still be carried out: the queue's back-off has longer delays.
    is_under_way = request.is_write and isinstance(error, TimedOut)
    return isinstance(error, Unreachable) and not is_under_way


def _collection(path: str) -> str:
    """Return the part of a path that names the kind that is written."""
    parts = path.split("/")
    index = parts.index("namespaces") + 2 if "namespaces" in parts else -1
    return parts[index] + ("/status" if path.endswith("/status") else "")


def _wait(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    retry_after = error.retry_after if isinstance(error, Refused) else None
    return max(retry_after or 0.0, _BACKOFF.delay(state.attempt_number, _rng))
