"""Caches the objects of one kind, as last received from the API server.

Filled by a reflector and by the responses to this process's own writes, whichever is newer: a
reconcile right after a write reads what it wrote. Objects are kept as the JSON they arrived in: a
tenth of the memory of dicts, and every reader gets a copy of its own.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import msgspec

from autoglm.api.labels import DEPLOYMENT
from autoglm.kube.kinds import Key, Kind
from autoglm.kube.reflector import Collection, Reader, Reflector
from autoglm.kube.verbs import ApiMetrics, Kube


class Regarding(msgspec.Struct):
    """The object that a core/v1 Event regards."""

    kind: str = ""
    namespace: str = ""
    name: str = ""


class Metadata(msgspec.Struct, rename="camel"):
    name: str
    namespace: str = ""
    uid: str = ""
    resource_version: str = "0"
    labels: Mapping[str, str] | None = None


class Head(msgspec.Struct, rename="camel"):
    """The few fields that the cache itself reads."""

    metadata: Metadata
    involved_object: Regarding = msgspec.field(default_factory=Regarding)


@dataclass(frozen=True, slots=True)
class _Entry:
    uid: str
    version: int
    owner: Key
    json: bytes


Owner = Callable[[Head], Key | None]
_heads = msgspec.json.Decoder(Head)


def labelled_owner(head: Head) -> Key | None:
    """Return the resource that an object's label names; None without the label."""
    name = (head.metadata.labels or {}).get(DEPLOYMENT)
    return Key(head.metadata.namespace, name) if name else None


def own_key(head: Head) -> Key | None:
    """Return the key of the object itself."""
    return Key(head.metadata.namespace, head.metadata.name)


class Cache:
    """Objects of one kind, by key and by the resource that owns them.

    Methods that change it return the owner to reconcile, or None where nothing changed. Objects
    without an owner are not kept.
    """

    def __init__(self, kind: Kind, owner: Owner = labelled_owner) -> None:
        self.kind = kind
        self._owner = owner
        self._entries: dict[Key, _Entry] = {}
        self._owned: defaultdict[Key, dict[Key, None]] = defaultdict(dict)
        self._deleted: set[str] = set()

    def __len__(self) -> int:
        return len(self._entries)

    def put_response(self, body: bytes, before: int) -> bool:
        """Store the response to a write; return whether the object is newer than version `before`.
        (The watch may have delivered it already.)"""
        self.put(body)
        return int(_heads.decode(body).metadata.resource_version) > before

    def put(self, json: bytes) -> Key | None:
        """Store an object, unless a newer version is stored or `forget` has dropped it."""
        head = _heads.decode(json)
        key, version = self._key(head), int(head.metadata.resource_version)
        known = self._entries.get(key)
        if head.metadata.uid in self._deleted or (known and known.version >= version):
            return None
        if known:
            self._drop(key)
        owner = self._owner(head)
        if owner is not None:
            self._entries[key] = _Entry(head.metadata.uid, version, owner, bytes(json))
            self._owned[owner][key] = None
        return owner

    def remove(self, json: bytes) -> Key | None:
        """Drop an object that the watch reports as deleted."""
        head = _heads.decode(json)
        self._deleted.discard(head.metadata.uid)
        key, known = self._key(head), self._entries.get(self._key(head))
        if known is None or known.uid != head.metadata.uid:
            return None
        return self._drop(key)

    def forget(self, key: Key, uid: str) -> None:
        """Drop an object that this process deleted; later watch events of it are stale."""
        known = self._entries.get(key)
        if known is not None and known.uid == uid:
            self._deleted.add(uid)
            self._drop(key)

    def replace(self, objects: Iterable[bytes], version: int, namespace: str = "") -> set[Key]:
        """Replace all objects (of a namespace) by a list, as of `version`; return the owners for
        which something changed."""
        changed, listed, uids = set(), set(), set()
        for json in objects:
            head = _heads.decode(json)
            listed.add(self._key(head))
            uids.add(head.metadata.uid)
            changed.add(self.put(json))
        if not namespace:
            self._deleted &= uids
        for key in self._entries.keys() - listed:
            if namespace in ("", key.namespace) and self._entries[key].version <= version:
                changed.add(self._drop(key))
        return {owner for owner in changed if owner is not None}

    def get(self, key: Key) -> dict[str, Any] | None:
        """Return a copy of an object; None where it is not cached."""
        entry = self._entries.get(key)
        return self._decoded(entry) if entry else None

    def version(self, key: Key) -> int:
        """Return the resourceVersion of an object; 0 where it is not cached."""
        entry = self._entries.get(key)
        return entry.version if entry else 0

    def of(self, owner: Key) -> list[dict[str, Any]]:
        """Return the objects that a resource owns, sorted by name."""
        keys = sorted(self._owned.get(owner, ()))
        return [self._decoded(self._entries[key]) for key in keys]

    def owners(self) -> set[Key]:
        """Return all owners of cached objects."""
        return set(self._owned)

    def _decoded(self, entry: _Entry) -> dict[str, Any]:
        # Items of a list lack both fields.
        body: dict[str, Any] = msgspec.json.decode(entry.json)
        return body | {"apiVersion": self.kind.api_version, "kind": self.kind.kind}

    def _drop(self, key: Key) -> Key:
        owner = self._entries.pop(key).owner
        del self._owned[owner][key]
        if not self._owned[owner]:
            del self._owned[owner]
        return owner

    @staticmethod
    def _key(head: Head) -> Key:
        return Key(head.metadata.namespace, head.metadata.name)


@dataclass(frozen=True, slots=True)
class Selection:
    """A namespace to watch (empty: all) and the selectors of the query."""

    namespace: str = ""
    query: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class _Cached:
    """Adapts a cache to a reflector: objects stay JSON."""

    cache: Cache
    namespace: str
    changed: Callable[[Key], None]

    def replace(self, objects: Sequence[bytes], version: str) -> None:
        for owner in self.cache.replace(objects, int(version), self.namespace):
            self.changed(owner)

    def put(self, json: bytes) -> None:
        self._report(self.cache.put(json))

    def remove(self, json: bytes) -> None:
        self._report(self.cache.remove(json))

    def _report(self, owner: Key | None) -> None:
        if owner is not None:
            self.changed(owner)


def watch(
    kube: Kube,
    cache: Cache,
    selection: Selection,
    changed: Callable[[Key], None],
    metrics: ApiMetrics,
    rng: Random,
    problem_changed: Callable[[], None] = lambda: None,
) -> Reflector[bytes]:
    """Return a reflector that fills `cache` while it runs.

    It calls `changed` with the owner of each changed object, and `problem_changed` when its
    `problem` has changed.
    """

    @contextlib.asynccontextmanager
    async def connect() -> AsyncIterator[Reader]:
        yield kube

    kind, namespace = cache.kind, selection.namespace
    name = f"{kind.plural} of {f'namespace {namespace}' if namespace else 'all namespaces'}"
    return Reflector(
        Collection(name, kind.path(namespace), bytes, selection.query),
        _Cached(cache, namespace, changed),
        connect,
        rng,
        listing=lambda why: metrics.watch_restarted(kind.kind, why),
        problem_changed=problem_changed,
    )
