"""Follows one collection of the Kubernetes API into a store: list once, then watch.

Decides when to ask again: a connection lost is resumed where it broke, history that the server has
forgotten (410) is listed anew, both with a back-off. Meanwhile the store keeps what it has: nothing
is dropped because the API server is away. Never writes to the cluster.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from random import Random
from typing import Generic, Protocol, TypeVar

import aiohttp
import msgspec

from autoglm.common.backoff import Backoff
from autoglm.common.shallow import decoded, shallow
from autoglm.gateway.kubernetes_cluster import Store
from autoglm.gateway.kubernetes_objects import Head, ObjectMeta
from autoglm.gateway.resources import Key

T = TypeVar("T")
_PAGE_OBJECTS = 500
_PAGE_SECONDS = 30.0
# The server sends a bookmark a minute, so longer silence is a dead connection.
_SILENCE_SECONDS = 90.0
_WATCH_SECONDS = (240.0, 480.0)
_SHORT_SECONDS = 1.0
BACKOFF = Backoff(first=0.1, most=5.0, jitter=0.5)
# From here on parsing would hold up requests; it goes to a thread.
_OFF_LOOP_BYTES = 256 * 1024
_GONE = 410
_MAX_ERROR_BYTES = 1024
_REMEDIES = {
    401: "; the credentials are not accepted any more",
    403: "; the gateway's role needs get, list and watch",
    404: "; install the CustomResourceDefinition (it comes with the chart)",
}
_log = logging.getLogger("autoglm.gateway")


class Api(Protocol):
    async def get(
        self, path: str, query: Mapping[str, str], silence: float, /
    ) -> aiohttp.ClientResponse: ...


class Refused(Exception):
    """The API server answered, and not with what was asked for."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"the API server answers {status}: {message}{_REMEDIES.get(status, '')}")
        self.status = status


async def checked(response: aiohttp.ClientResponse) -> aiohttp.ClientResponse:
    """The response, if it is what was asked for. Raises Refused."""
    if response.status == 200:
        return response
    body = await response.content.read(_MAX_ERROR_BYTES)
    response.close()
    raise Refused(response.status, " ".join(body.decode(errors="replace").split()))


Connect = Callable[[], AbstractAsyncContextManager[Api]]


class Lost(Exception):
    """The watch cannot go on as it is; the text says why."""


class Forgotten(Lost):
    """The server no longer knows what has happened since; list anew."""


class _ListMeta(msgspec.Struct, rename={"version": "resourceVersion", "token": "continue"}):
    version: str = ""
    token: str = ""


class _Page(msgspec.Struct):
    metadata: _ListMeta
    items: list[msgspec.Raw] = []


class _Bookmark(msgspec.Struct):
    metadata: _ListMeta


class _Event(msgspec.Struct):
    type: str
    object: msgspec.Raw


class _Status(msgspec.Struct):
    code: int = 0
    message: str = ""


_pages = msgspec.json.Decoder(_Page)
_events = msgspec.json.Decoder(_Event)


@dataclass(frozen=True, slots=True)
class Collection(Generic[T]):
    """What to follow, and how to read one object; `read` raises ValueError."""

    name: str
    path: str
    read: Callable[[bytes], T]
    selector: str = ""

    def query(self, **more: str) -> dict[str, str]:
        selector = {"labelSelector": self.selector} if self.selector else {}
        return selector | {name: value for name, value in more.items() if value}


class Reflector(Generic[T]):
    """Keeps a store like a collection of the API. `on_change` follows every batch of changes."""

    def __init__(
        self,
        collection: Collection[T],
        store: Store[T],
        connect: Connect,
        on_change: Callable[[], None],
        rng: Random,
    ) -> None:
        self._collection = collection
        self._store = store
        self._connect = connect
        self._on_change = on_change
        self._rng = rng
        self._version = ""
        self._failures = 0
        self._told = ""

    async def run(self) -> None:
        """Runs until it is cancelled."""
        while True:
            try:
                async with self._connect() as api:
                    while True:
                        await self._follow(api)
            except Exception as error:
                # Whatever it is, a collection that nobody follows would never change again.
                self._failures += 1
                if isinstance(error, Forgotten) or _is_gone(error):
                    self._version = ""
                self._report(error)
                await asyncio.sleep(BACKOFF.delay(self._failures, self._rng))

    async def _follow(self, api: Api) -> None:
        if not self._version:
            self._version = await self._list(api)
        await self._watch(api)
        self._failures = 0

    async def _list(self, api: Api) -> str:
        """The version of the list, at which the watch begins."""
        found: dict[Key, T | None] = {}
        token = ""
        while True:
            query = self._collection.query(limit=str(_PAGE_OBJECTS), **{"continue": token})
            response = await api.get(self._collection.path, query, _PAGE_SECONDS)
            async with response:
                body = await response.read()
            page, facts = await self._off_loop(body)
            found |= facts
            token = page.metadata.token
            if not token:
                break
        self._store.replace(found)
        self._on_change()
        return page.metadata.version

    async def _off_loop(self, body: bytes) -> tuple[_Page, dict[Key, T | None]]:
        if len(body) < _OFF_LOOP_BYTES:
            return self._read_page(body)
        return await asyncio.to_thread(self._read_page, body)

    def _read_page(self, body: bytes) -> tuple[_Page, dict[Key, T | None]]:
        page = decoded(_pages, body)
        pairs = (self._read(shallow(bytes(item))) for item in page.items)
        return page, {head.key: fact for head, fact in pairs}

    def _read(self, item: bytes) -> tuple[ObjectMeta, T | None]:
        """The fact, or None where the object cannot be read: one bad object harms no other."""
        head = msgspec.json.decode(item, type=Head).metadata
        try:
            return head, self._collection.read(item)
        except ValueError as error:
            _log.warning("%s %s stays as it was: %s", self._collection.name, head.key, error)
            return head, None

    async def _watch(self, api: Api) -> None:
        """Takes events until the server ends the watch, which it does every few minutes."""
        query = self._collection.query(
            watch="true",
            allowWatchBookmarks="true",
            resourceVersion=self._version,
            timeoutSeconds=str(int(self._rng.uniform(*_WATCH_SECONDS))),
        )
        loop = asyncio.get_running_loop()
        started, events = loop.time(), 0
        response = await api.get(self._collection.path, query, _SILENCE_SECONDS)
        async with response:
            self._recovered()
            async for line in response.content:
                self._take(decoded(_events, line))
                self._failures, events = 0, events + 1
        if not events and loop.time() - started < _SHORT_SECONDS:
            raise Lost("the API server ended the watch at once")

    def _take(self, event: _Event) -> None:
        if event.type == "ERROR":
            status = msgspec.json.decode(event.object, type=_Status)
            raise Forgotten(f"the watch ended with {status.code}: {status.message}")
        if event.type == "BOOKMARK":
            head = msgspec.json.decode(event.object, type=_Bookmark).metadata
            self._version = head.version
            return
        meta, fact = self._read(shallow(bytes(event.object)))
        if event.type == "DELETED":
            self._store.put(meta.key, None)
        elif fact is not None:
            self._store.put(meta.key, fact)
        self._version = meta.resource_version
        self._on_change()

    def _recovered(self) -> None:
        if self._told:
            _log.info("watching %s again", self._collection.name)
        self._told = ""

    def _report(self, error: Exception) -> None:
        """Say it once, and again when it has become something else."""
        is_bug = not isinstance(error, (Lost, Refused, OSError, aiohttp.ClientError, ValueError))
        text = str(error) or type(error).__name__
        if text != self._told and not (isinstance(error, Forgotten) and self._failures == 1):
            _log.warning(
                "cannot watch %s, keeping what is known: %s",
                self._collection.name,
                text,
                exc_info=error if is_bug else None,
            )
            self._told = text


def _is_gone(error: Exception) -> bool:
    return isinstance(error, Refused) and error.status == _GONE
