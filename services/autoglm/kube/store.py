"""What the API server last said about the objects of one kind. No I/O.

Fed by a watch and by the answers to our own writes, whichever is newer, so that a reconcile right
after a write sees what it wrote. Objects are kept as the JSON they came in: a tenth of the memory
of dicts, and every reader gets a copy of its own.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from autoglm.api.labels import DEPLOYMENT
from autoglm.kube.key import Key
from autoglm.kube.kinds import Kind


class Regarding(msgspec.Struct):
    """What a core/v1 Event is about."""

    kind: str = ""
    namespace: str = ""
    name: str = ""


class Metadata(msgspec.Struct, rename="camel"):
    name: str
    namespace: str
    uid: str = ""
    resource_version: str = "0"
    labels: Mapping[str, str] | None = None


class Head(msgspec.Struct, rename="camel"):
    """The few fields that the cache itself looks at."""

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
    """The resource that an object's label names."""
    name = (head.metadata.labels or {}).get(DEPLOYMENT)
    return Key(head.metadata.namespace, name) if name else None


def own_key(head: Head) -> Key | None:
    return Key(head.metadata.namespace, head.metadata.name)


class Cache:
    """Objects of one kind, by their own names and by the resource they belong to.

    Changing methods return the resource that should hear of it, or None where nothing is new.
    Objects without an owner are not kept.
    """

    def __init__(self, kind: Kind, owner: Owner = labelled_owner) -> None:
        self.kind = kind
        self._owner = owner
        self._entries: dict[Key, _Entry] = {}
        self._owned: defaultdict[Key, dict[Key, None]] = defaultdict(dict)
        self._deleted: set[str] = set()

    def __len__(self) -> int:
        return len(self._entries)

    def took(self, answer: bytes, before: int) -> bool:
        """Takes the answer to a write; whether the object is newer than version `before`. (The
        watch may have told of it already.)"""
        self.put(answer)
        return int(_heads.decode(answer).metadata.resource_version) > before

    def put(self, json: bytes) -> Key | None:
        """Takes an object unless a newer one is known, or it was deleted by us."""
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
        """The watch says that this object is gone."""
        head = _heads.decode(json)
        self._deleted.discard(head.metadata.uid)
        key, known = self._key(head), self._entries.get(self._key(head))
        if known is None or known.uid != head.metadata.uid:
            return None
        return self._drop(key)

    def forget(self, key: Key, uid: str) -> None:
        """We have deleted this object; what the watch still tells of it is old."""
        known = self._entries.get(key)
        if known is not None and known.uid == uid:
            self._deleted.add(uid)
            self._drop(key)

    def replace(self, objects: Iterable[bytes], version: int, namespace: str = "") -> set[Key]:
        """A list of all objects (of a namespace), as of `version`; the resources for which
        something is new."""
        news, listed, uids = set(), set(), set()
        for json in objects:
            head = _heads.decode(json)
            listed.add(self._key(head))
            uids.add(head.metadata.uid)
            news.add(self.put(json))
        if not namespace:
            self._deleted &= uids
        for key in self._entries.keys() - listed:
            if namespace in ("", key.namespace) and self._entries[key].version <= version:
                news.add(self._drop(key))
        return {owner for owner in news if owner is not None}

    def get(self, key: Key) -> dict[str, Any] | None:
        entry = self._entries.get(key)
        return self._decoded(entry) if entry else None

    def version(self, key: Key) -> int:
        """0 for an object that is not known."""
        entry = self._entries.get(key)
        return entry.version if entry else 0

    def of(self, owner: Key) -> list[dict[str, Any]]:
        """The objects of a resource, by name."""
        keys = sorted(self._owned.get(owner, ()))
        return [self._decoded(self._entries[key]) for key in keys]

    def owners(self) -> set[Key]:
        return set(self._owned)

    def _decoded(self, entry: _Entry) -> dict[str, Any]:
        # Objects of a list come without the two.
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
