"""Keeps a store in sync with one collection of the Kubernetes API: list in pages, then watch.

After a broken connection the watch resumes at the last resourceVersion; after history that the
server no longer has (410) the collection is listed again; both wait by `Pacing`. Meanwhile the
store keeps its objects: none is dropped because the API server is unreachable. Never writes to the
cluster.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass
from random import Random
from typing import Final, Generic, Protocol, TypeVar

import msgspec

from autoglm.api.shallow import decoded, shallow
from autoglm.common.pacing import Backoff
from autoglm.kube.transport import Pages, Query, Refused, Unreachable

T = TypeVar("T")
Taken = TypeVar("Taken", contravariant=True)
BACKOFF: Final = Backoff(first=0.2, most=10.0, jitter=0.5)
SHORT_SECONDS: Final = 1.0
"""A watch that lasts less ended early."""
# The server ends a watch after some minutes; different ones, so that not all return at once.
_WATCH_SECONDS = (240.0, 480.0)
# Parsing larger pages would block the event loop; it moves to a thread.
_OFF_LOOP_BYTES = 256 * 1024
# The resourceVersion is invalid: malformed, of a kind that was removed meanwhile, or too old.
_GONE = 410
_VERSION_LOST: Final = frozenset({400, 404, _GONE})
# A watch that was open so long counts as progress, whatever ended it.
_LONG_SECONDS = 30.0
# Of an API server restored from a backup, whose versions are behind the known one.
_TOO_LARGE = "Too large resource version"
_log = logging.getLogger("autoglm.kube")


class Reader(Protocol):
    """Reads paths of the API server. Raises Refused and Unreachable."""

    async def page(self, path: str, query: Query, /) -> bytes:
        """Read one page of a list, within a timeout."""
        ...

    def lines(self, path: str, query: Query, /) -> AsyncIterator[bytes]:
        """Yield the lines of a watch as they arrive."""
        ...


class Store(Protocol[Taken]):
    """Receives objects from a reflector, in the order of the API server."""

    def replace(self, objects: Sequence[Taken], version: str, /) -> None:
        """Replace the contents by these objects, as of the list's resourceVersion."""
        ...

    def put(self, thing: Taken, /) -> None: ...

    def remove(self, thing: Taken, /) -> None: ...


@dataclass(frozen=True, slots=True)
class Collection(Generic[T]):
    """A collection to read, and the codec of its objects; large pages are decoded in a thread."""

    name: str
    path: str
    decode: Callable[[bytes], T]
    query: Query = ()


Connect = Callable[[], AbstractAsyncContextManager[Reader]]


class Expired(Exception):
    """The watch ended with an error; later changes are known by a new list only."""


class _ListMeta(msgspec.Struct, rename={"version": "resourceVersion", "token": "continue"}):
    version: str = ""
    token: str = ""


class _Page(msgspec.Struct):
    metadata: _ListMeta
    items: list[msgspec.Raw] | None = None


class _Head(msgspec.Struct):
    metadata: _ListMeta


class _Event(msgspec.Struct):
    type: str
    object: msgspec.Raw


class _Status(msgspec.Struct):
    code: int = 0
    message: str = ""


_pages = msgspec.json.Decoder(_Page)
_heads = msgspec.json.Decoder(_Head)
_events = msgspec.json.Decoder(_Event)


@dataclass(slots=True)
class Pacing:
    """Computes the delays of one collection from its consecutive failures. Pure.

    An API server (or a proxy before it) that ends every watch at once must not be polled in a tight
    loop, whether or not it delivers an event each time; a watch that ends after its minutes
    restarts at once.
    """

    rng: Random
    backoff: Backoff
    failures: int = 0
    """Consecutive attempts without a list or an event."""

    def progressed(self) -> None:
        """Record that a list or an event was received."""
        self.failures = 0

    def ended(self, lasted: float, events: int) -> float:
        """Return the seconds to wait after a watch that the server ended without an error.

        `lasted` is how long it was open, in seconds; `events` counts what it delivered.
        """
        if lasted >= SHORT_SECONDS:
            self.failures = 0
            return 0.0
        if not events:
            self.failures += 1
            return self.backoff.delay(self.failures, self.rng)
        # Events arrive, so they must not be delayed; one request a second is no load.
        return (SHORT_SECONDS - lasted) * (1 - self.backoff.jitter * self.rng.random())

    def failed(self, retry_after: float | None = None) -> float:
        """Return the seconds to wait after an error, at least the server's Retry-After."""
        self.failures += 1
        return max(retry_after or 0.0, self.backoff.delay(self.failures, self.rng))


class Reflector(Generic[T]):
    """Lists and watches one collection into a store.

    Calls `listing` before each list with its cause (start, expired or refused), and
    `problem_changed` when `problem` has changed. `explain` returns the text of a refusal.
    """

    def __init__(
        self,
        collection: Collection[T],
        store: Store[T],
        connect: Connect,
        rng: Random,
        *,
        listing: Callable[[str], None] = lambda _: None,
        problem_changed: Callable[[], None] = lambda: None,
        explain: Callable[[Refused], str] = str,
    ) -> None:
        self._collection = collection
        self._store = store
        self._connect = connect
        self._rng = rng
        self._listing = listing
        self._problem_changed = problem_changed
        self._explain = explain
        self._pacing = Pacing(rng, BACKOFF)
        self._version = ""
        self._why = "start"
        self.synced = asyncio.Event()
        """Set once the collection has been listed."""
        self.problem = ""
        """Why the collection cannot be read now; empty while it can be read."""

    async def run(self) -> None:
        """Run until cancelled."""
        while True:
            try:
                async with self._connect() as reader:
                    while True:
                        await self._follow(reader)
            except Exception as error:
                # Any error is retried: a reflector that ended would leave its store stale for ever.
                if why := _why_to_list(error):
                    self._version, self._why = "", why
                retry_after = error.retry_after if isinstance(error, Refused) else None
                delay = self._pacing.failed(retry_after)
                self._report(error)
                await asyncio.sleep(delay)

    async def _follow(self, reader: Reader) -> None:
        """List if necessary, watch until the server ends it, then wait before the next watch."""
        if not self._version:
            self._listing(self._why)
            self._version = await self._list(reader)
            self._recovered()
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            events = await self._watch(reader)
        finally:
            if (lasted := loop.time() - began) >= _LONG_SECONDS:
                self._pacing.progressed()
        delay = self._pacing.ended(lasted, events)
        if self._pacing.failures:
            self._report(Unreachable(f"the API server ended the watch after {lasted:.1f} s"))
        await asyncio.sleep(delay)

    async def _list(self, reader: Reader) -> str:
        """Fill the store; return the list's resourceVersion, at which the watch begins."""
        version, found, pages = "", list[T](), Pages(self._collection.query)
        for query in pages:
            body = await reader.page(self._collection.path, query)
            if len(body) < _OFF_LOOP_BYTES:
                page, objects = self.read_page(body)
            else:
                page, objects = await asyncio.to_thread(self.read_page, body)
            found += objects
            version, pages.token = page.metadata.version, page.metadata.token
        self._store.replace(found, version)
        self.synced.set()
        return version

    def read_page(self, body: bytes) -> tuple[_Page, list[T]]:
        """Decode one page of a list."""
        page = decoded(_pages, body)
        # Raw is a view that would keep the whole page alive.
        items = (shallow(bytes(item)) for item in page.items or ())
        return page, [self._collection.decode(item) for item in items]

    async def _watch(self, reader: Reader) -> int:
        """Process events until the server ends the watch; return their number."""
        query = (
            *self._collection.query,
            ("watch", "1"),
            ("allowWatchBookmarks", "true"),
            ("resourceVersion", self._version),
            ("timeoutSeconds", str(int(self._rng.uniform(*_WATCH_SECONDS)))),
        )
        events = 0
        lines = reader.lines(self._collection.path, query)
        async with aclosing(lines):  # type: ignore[type-var]  # a generator in fact
            async for line in lines:
                event = decoded(_events, line)
                if event.type == "ERROR":
                    status = msgspec.json.decode(event.object, type=_Status)
                    raise Expired(f"the watch ended with {status.code}: {status.message}")
                thing = shallow(bytes(event.object))
                if event.type == "DELETED":
                    self._store.remove(self._collection.decode(thing))
                elif event.type in ("ADDED", "MODIFIED"):
                    self._store.put(self._collection.decode(thing))
                # A bookmark has nothing else.
                self._version = _heads.decode(thing).metadata.version
                self._pacing.progressed()
                self._recovered()
                events += 1
        return events

    def _recovered(self) -> None:
        if self.problem:
            _log.info("watching %s again", self._collection.name)
            self.problem = ""
            self._problem_changed()

    def _report(self, error: Exception) -> None:
        """Log a problem once, and again when it changes."""
        known = (Expired, Refused, Unreachable, OSError, ValueError)
        text = self._explain(error) if isinstance(error, Refused) else str(error)
        text = text or type(error).__name__
        # History that expired once is normal.
        if text == self.problem or (isinstance(error, Expired) and self._pacing.failures == 1):
            return
        _log.warning(
            "cannot watch %s, keeping the last state: %s",
            self._collection.name,
            text,
            exc_info=None if isinstance(error, known) else error,
        )
        self.problem = text
        self._problem_changed()


def _why_to_list(error: Exception) -> str:
    """Return why the watch cannot resume at the last version; empty if it can."""
    if isinstance(error, Refused) and error.status != _GONE:
        is_lost = error.status in _VERSION_LOST or _TOO_LARGE in error.message
        return "refused" if is_lost else ""
    return "expired" if isinstance(error, Refused | Expired) else ""
