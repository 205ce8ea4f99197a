"""Keeps what a codec reads of each object of one collection, as last received.

For readers of a few fields of many objects, which compare equal while the rest of an object
changes. An object that cannot be read keeps its previous value and harms no other.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

import msgspec

from autoglm.kube.kinds import Key
from autoglm.kube.reflector import Collection
from autoglm.kube.transport import Query

T = TypeVar("T")
_log = logging.getLogger("autoglm.kube")


@dataclass(frozen=True, slots=True)
class Decoded(Generic[T]):
    """One object; `value` is None where it cannot be read."""

    key: Key
    value: T | None


class _Metadata(msgspec.Struct):
    name: str
    namespace: str = ""


class _Head(msgspec.Struct):
    metadata: _Metadata


_heads = msgspec.json.Decoder(_Head)


def typed(
    name: str, path: str, read: Callable[[bytes], T], query: Query = ()
) -> Collection[Decoded[T]]:
    """Return a collection of a `TypedStore`. `read` raises ValueError for an invalid object."""

    def decode(item: bytes) -> Decoded[T]:
        metadata = _heads.decode(item).metadata
        key = Key(metadata.namespace, metadata.name)
        try:
            return Decoded(key, read(item))
        except ValueError as error:
            text = "ignoring invalid %s %s, keeping the previous version: %s"
            _log.warning(text, name, key, error)
            return Decoded(key, None)

    return Collection(name, path, decode, query)


class TypedStore(Generic[T]):
    """The values of one collection by key.

    Calls `on_change` with the key and the values before and after, None for none, of each changed
    object, and `on_event` after each list and each event.
    """

    def __init__(
        self,
        on_change: Callable[[Key, T | None, T | None], None],
        on_event: Callable[[], None] = lambda: None,
    ) -> None:
        self._on_change = on_change
        self._on_event = on_event
        self._values: dict[Key, T] = {}
        self.is_listed = False
        """Whether the collection was listed once."""

    def replace(self, objects: Iterable[Decoded[T]], version: str = "") -> None:
        """Replace all objects by those of a list."""
        listed = {decoded.key: decoded.value for decoded in objects}
        for key in self._values.keys() - listed.keys():
            self._set(key, None)
        for key, value in listed.items():
            if value is not None:
                self._set(key, value)
        self.is_listed = True
        self._on_event()

    def put(self, decoded: Decoded[T]) -> None:
        """Add or replace an object."""
        if decoded.value is not None:
            self._set(decoded.key, decoded.value)
        self._on_event()

    def remove(self, decoded: Decoded[T]) -> None:
        """Drop an object."""
        self._set(decoded.key, None)
        self._on_event()

    def _set(self, key: Key, value: T | None) -> None:
        before = self._values.get(key)
        if before == value:
            return
        if value is None:
            del self._values[key]
        else:
            self._values[key] = value
        self._on_change(key, before, value)
