"""The verbs of the operator towards the API server. Decides what is worth another attempt.

Each has a time limit and a bounded number of attempts; a write begins only while it is allowed to.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt

from autoglm.api.labels import FIELD_MANAGER
from autoglm.common.shallow import decoded, shallow
from autoglm.operator.kinds import Kind
from autoglm.operator.metrics import Metrics
from autoglm.operator.transport import APPLY, MERGE, Refused, Request, Transport, Unreachable

_ATTEMPTS = 3
# Longer waits are left to the queue, so that a worker is not held.
_LONGEST_WAIT = 2.0
_PAGE = 500
_CONFLICT = 409


class NotLeading(Exception):
    """Another operator may be writing."""


class Page(msgspec.Struct):
    """A part of a list; its objects stay as they came."""

    class Metadata(msgspec.Struct, rename="camel"):
        resource_version: str = "0"
        # `continue` is a keyword.
        more: str = msgspec.field(default="", name="continue")

    metadata: Metadata
    items: list[msgspec.Raw] | None = None


class WatchEvent(msgspec.Struct):
    """A line of a watch."""

    type: str
    object: msgspec.Raw


_pages = msgspec.json.Decoder(Page)
_watch_events = msgspec.json.Decoder(WatchEvent)


@dataclass(frozen=True, slots=True)
class Limits:
    """Time limits in seconds. `write` returns how long a write that begins now may take, 0 for not
    at all."""

    read: float
    write: Callable[[], float]


class Kube:
    """The verbs of the operator. Answers to writes are the objects as JSON."""

    def __init__(self, transport: Transport, metrics: Metrics, limits: Limits) -> None:
        self._transport = transport
        self._metrics = metrics
        self._limits = limits

    async def get(self, path: str) -> bytes:
        return await self._answered(Request("GET", path))

    async def list(
        self, kind: Kind, namespace: str, query: tuple[tuple[str, str], ...]
    ) -> tuple[list[bytes], str]:
        """All objects, and the version of the list."""
        items: list[bytes] = []
        page = Page(Page.Metadata())
        while True:
            more = (("continue", page.metadata.more),) if page.metadata.more else ()
            asked = (*query, ("limit", str(_PAGE)), *more)
            answer = await self._send(Request("GET", kind.path(namespace), asked))
            page = decoded(_pages, answer)
            # Raw is a view that would keep the whole page alive.
            items += [shallow(bytes(item)) for item in page.items or ()]
            if not page.metadata.more:
                return items, page.metadata.resource_version

    async def watch(
        self, kind: Kind, namespace: str, query: tuple[tuple[str, str], ...], version: str
    ) -> AsyncIterator[WatchEvent]:
        """What happens after `version`, until the server ends it. Raises Refused with 410 when that
        is too long ago."""
        asked = (*query, ("watch", "1"), ("allowWatchBookmarks", "1"), ("resourceVersion", version))
        lines = self._transport.stream(Request("GET", kind.path(namespace), asked))
        async with contextlib.aclosing(lines):  # type: ignore[type-var]  # a generator in fact
            async for line in lines:
                event = decoded(_watch_events, line)
                if event.type == "ERROR":
                    raise _watch_error(event.object)
                yield WatchEvent(event.type, msgspec.Raw(shallow(bytes(event.object))))

    async def apply(self, path: str, body: Mapping[str, Any], *, force: bool = False) -> bytes:
        query = (("fieldManager", FIELD_MANAGER), ("force", "true" if force else "false"))
        return await self._answered(Request("PATCH", path, query, body, APPLY))

    async def merge(self, path: str, body: Mapping[str, Any]) -> bytes:
        query = (("fieldManager", FIELD_MANAGER),)
        return await self._answered(Request("PATCH", path, query, body, MERGE))

    async def create(self, path: str, body: Mapping[str, Any]) -> bytes:
        query = (("fieldManager", FIELD_MANAGER),)
        return await self._answered(Request("POST", path, query, body))

    async def replace(self, path: str, body: Mapping[str, Any]) -> bytes:
        query = (("fieldManager", FIELD_MANAGER),)
        return await self._answered(Request("PUT", path, query, body))

    async def delete(self, path: str, uid: str) -> bytes:
        """What the object owns is deleted in the background, after it."""
        body = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "preconditions": {"uid": uid},
            "propagationPolicy": "Background",
        }
        return await self._answered(Request("DELETE", path, (), body))

    async def _answered(self, request: Request) -> bytes:
        """The object that is the answer."""
        return shallow(await self._send(request))

    async def _send(self, request: Request) -> bytes:
        attempts = AsyncRetrying(
            stop=stop_after_attempt(_ATTEMPTS),
            wait=_wait,
            retry=retry_if_exception(partial(_is_transient, request)),
            reraise=True,
        )
        answer: bytes = await attempts(self._attempt, request)
        return answer

    async def _attempt(self, request: Request) -> bytes:
        timeout = self._limits.write() if request.is_write else self._limits.read
        if timeout <= 0:
            raise NotLeading("this operator does not hold the lease")
        with self._metrics.api_call(request.method) as outcome:
            try:
                return await self._transport.send(request, timeout)
            except Refused as error:
                outcome.code = str(error.status)
                raise
            except Unreachable:
                outcome.code = "none"
                raise


def _watch_error(status: bytes) -> Refused:
    decoded = msgspec.json.decode(status)
    return Refused(decoded.get("code", 0), decoded.get("reason", ""), decoded.get("message", ""))


def _is_transient(request: Request, error: BaseException) -> bool:
    if isinstance(error, Refused):
        if error.status == _CONFLICT and request.method == "PATCH":
            # Somebody wrote at the same moment; a conflict over fields has causes, and one over
            # the version that was asked for stays.
            return not error.causes and not _names_version(request)
        return error.is_transient and (error.retry_after or 0) <= _LONGEST_WAIT
    return isinstance(error, Unreachable)


def _names_version(request: Request) -> bool:
    return "resourceVersion" in ((request.body or {}).get("metadata") or {})


def _wait(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    asked = error.retry_after if isinstance(error, Refused) else None
    return max(asked or 0.0, 0.1 * 2.0**state.attempt_number)
