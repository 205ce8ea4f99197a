"""Follows one collection of the Kubernetes API into a store of facts.

Parses objects and adds a remedy to each error of the API server; `kube.reflector` decides when to
list, watch and wait. Read-only.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from random import Random
from typing import Generic, Protocol, TypeVar

import aiohttp
import msgspec

from autoglm.gateway.endpoints.kubernetes_cluster import Store
from autoglm.gateway.endpoints.kubernetes_objects import Head, ObjectMeta
from autoglm.kube import errors, reflector
from autoglm.kube.reflector import Query

T = TypeVar("T")
_PAGE_SECONDS = 30.0
# The server sends a bookmark every minute, so a longer silence is a dead connection.
_SILENCE_SECONDS = 90.0
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


class Refused(errors.Refused):
    """The API server responded with an error status; the text has the way out."""

    def __str__(self) -> str:
        remedy = _REMEDIES.get(self.status, "")
        return f"the API server returned {self.status}: {self.message}{remedy}"


async def checked(response: aiohttp.ClientResponse) -> aiohttp.ClientResponse:
    """Return the response, if its status is 200. Raises Refused."""
    if response.status == 200:
        return response
    body = await response.content.read(_MAX_ERROR_BYTES)
    response.close()
    text = " ".join(body.decode(errors="replace").split())
    pause = response.headers.get("Retry-After", "")
    retry_after = float(pause) if pause.isdigit() else None
    raise Refused(response.status, response.reason or "", text, retry_after=retry_after)


Connect = Callable[[], AbstractAsyncContextManager[Api]]


@dataclass(frozen=True, slots=True)
class Read(Generic[T]):
    """One object; `fact` is None where it cannot be read: one bad object harms no other."""

    meta: ObjectMeta
    fact: T | None


@dataclass(frozen=True, slots=True)
class Collection(Generic[T]):
    """A collection to follow. `read` parses one object and raises ValueError."""

    name: str
    path: str
    read: Callable[[bytes], T]
    selector: str = ""

    def decode(self, item: bytes) -> Read[T]:
        """Read one object, in a thread where it is one of many."""
        meta = msgspec.json.decode(item, type=Head).metadata
        try:
            return Read(meta, self.read(item))
        except ValueError as error:
            _log.warning(
                "ignoring invalid %s %s, keeping the previous version: %s",
                self.name,
                meta.key,
                error,
            )
            return Read(meta, None)

    @property
    def reflected(self) -> reflector.Collection[Read[T]]:
        query = (("labelSelector", self.selector),) if self.selector else ()
        return reflector.Collection(self.name, self.path, self.decode, query)


@dataclass(frozen=True, slots=True)
class _Facts(Generic[T]):
    """Puts what is read into the store; `on_change` follows every batch of changes."""

    store: Store[T]
    on_change: Callable[[], None]

    def replace(self, objects: Sequence[Read[T]], version: str) -> None:
        self.store.replace({read.meta.key: read.fact for read in objects})
        self.on_change()

    def put(self, read: Read[T]) -> None:
        if read.fact is not None:
            self.store.put(read.meta.key, read.fact)
        self.on_change()

    def remove(self, read: Read[T]) -> None:
        self.store.put(read.meta.key, None)
        self.on_change()


@dataclass(frozen=True, slots=True)
class _Reader:
    """Bytes of the gateway's connections, for the reflector."""

    api: Api

    async def page(self, path: str, query: Query) -> bytes:
        async with await self.api.get(path, dict(query), _PAGE_SECONDS) as response:
            return await response.read()

    async def lines(self, path: str, query: Query) -> AsyncIterator[bytes]:
        async with await self.api.get(path, dict(query), _SILENCE_SECONDS) as response:
            async for line in response.content:
                yield line


def follow(
    collection: Collection[T],
    store: Store[T],
    connect: Connect,
    on_change: Callable[[], None],
    rng: Random,
) -> reflector.Reflector[Read[T]]:
    """Return what keeps `store` like the collection while it runs."""

    @asynccontextmanager
    async def reading() -> AsyncIterator[reflector.Reader]:
        async with connect() as api:
            yield _Reader(api)

    facts = _Facts(store, on_change)
    return reflector.Reflector(collection.reflected, facts, reading, rng)
