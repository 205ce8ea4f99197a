"""Requests to the Kubernetes API: their form, their errors, and how lists are read in pages.

Types only; `client` is the transport to an API server.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

APPLY: Final = "application/apply-patch+yaml"
MERGE: Final = "application/merge-patch+json"
JSON: Final = "application/json"
Query = tuple[tuple[str, str], ...]
# The API server itself ends a request after so long.
_PAGE_SECONDS = 60.0
_PAGE_OBJECTS = 500


class Unreachable(Exception):
    """No response: the connection was refused or broken, or the timeout has passed."""


class TimedOut(Unreachable):
    """No response within the timeout; the API server may still carry out the request."""


class NotLeading(Exception):
    """This operator may not write, because another one may hold the Lease."""


class Refused(Exception):
    """The API server responded with an error status."""

    def __init__(self, status: int, reason: str, message: str, **more: Any) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message
        self.causes: tuple[Mapping[str, str], ...] = tuple(more.get("causes", ()))
        self.retry_after: float | None = more.get("retry_after")

    @property
    def is_not_found(self) -> bool:
        return self.status == 404

    @property
    def is_conflict(self) -> bool:
        return self.status == 409

    @property
    def is_transient(self) -> bool:
        return self.status == 429 or self.status >= 500


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request."""

    method: str
    path: str
    query: Query = ()
    body: Mapping[str, Any] | None = None
    content_type: str = JSON

    @property
    def is_write(self) -> bool:
        return self.method != "GET"


class Transport(Protocol):
    """Sends requests. Raises Refused and Unreachable."""

    async def send(self, request: Request, timeout: float) -> bytes: ...

    def stream(self, request: Request) -> AsyncIterator[bytes]:
        """Yield the lines of the response as they arrive."""
        ...

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class PlainReader:
    """Reads lists and watches over a transport. Retries nothing, since reflectors do."""

    transport: Transport

    async def page(self, path: str, query: Query) -> bytes:
        """Read one page of a list."""
        return await self.transport.send(Request("GET", path, query), _PAGE_SECONDS)

    def lines(self, path: str, query: Query) -> AsyncIterator[bytes]:
        """Yield the lines of a watch, until the server ends it."""
        return self.transport.stream(Request("GET", path, query))


@dataclass(slots=True)
class Pages:
    """Iterates over the queries of a list's pages; `token` is the `continue` of the last page."""

    query: Query = ()
    token: str = ""

    def __iter__(self) -> Iterator[Query]:
        limited = (*self.query, ("limit", str(_PAGE_OBJECTS)))
        yield limited
        while self.token:
            yield (*limited, ("continue", self.token))
