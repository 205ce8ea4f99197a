"""Fills a cache by a reflector, and reports changed owners by key."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from random import Random

from autoglm.kube.key import Key
from autoglm.kube.reflector import Collection, Reader, Reflector
from autoglm.kube.store import Cache
from autoglm.kube.verbs import ApiMetrics, Kube


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
