"""Discovers endpoints and resources from the Kubernetes API (`--kubernetes`).

Connects the watches, the cluster's state and the listener. Events that arrive together are
published together.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterator, Sequence
from random import Random
from typing import Any

from autoglm.api.deployment import API_VERSION
from autoglm.api.labels import DEPLOYMENT, PLURAL
from autoglm.api.names import NO_RULES, NameRules
from autoglm.gateway.endpoints.deployments import Conflict, Directory, Resource, conflicts_in
from autoglm.gateway.endpoints.kubernetes_cluster import Change, Cluster
from autoglm.gateway.endpoints.kubernetes_objects import Slice, resource_of, slice_of
from autoglm.gateway.endpoints.kubernetes_watch import Collection, Connect, follow

_log = logging.getLogger("autoglm.gateway")


def resources_in(namespace: str) -> Collection[Resource]:
    """Return the collection of AutoGLMDeployments; an empty namespace stands for all."""
    path = f"/apis/{API_VERSION}{_within(namespace)}/{PLURAL}"
    return Collection(f"{PLURAL}{_of(namespace)}", path, resource_of)


def slices_in(namespace: str) -> Collection[Slice]:
    """Return the collection of pods' EndpointSlices; an empty namespace stands for all."""
    # Kubernetes copies a Service's labels to its slices.
    path = f"/apis/discovery.k8s.io/v1{_within(namespace)}/endpointslices"
    return Collection(f"endpointslices{_of(namespace)}", path, slice_of, DEPLOYMENT)


def _within(namespace: str) -> str:
    return f"/namespaces/{namespace}" if namespace else ""


def _of(namespace: str) -> str:
    return f" of namespace {namespace}" if namespace else " of all namespaces"


class KubernetesDiscovery:
    """Calls `listener` with each change; the first one contains everything."""

    def __init__(
        self,
        namespaces: Sequence[str],
        connect: Connect,
        listener: Callable[[Change], None],
        rng: Random,
        rules: NameRules = NO_RULES,
    ) -> None:
        self._namespaces = namespaces or ("",)
        self._connect = connect
        self._listener = listener
        self._rng = rng
        self._cluster = Cluster(rules)
        self._known_conflicts: frozenset[Conflict] = frozenset()
        self._pending: asyncio.Handle | None = None

    async def run(self) -> None:
        """Watch until cancelled."""
        await asyncio.gather(*self._follows())

    def _follows(self) -> Iterator[Coroutine[Any, Any, None]]:
        for namespace in self._namespaces:
            resources, slices = self._cluster.resource_store(), self._cluster.slice_store()
            parts = (self._connect, self._note, self._rng)
            yield follow(resources_in(namespace), resources, *parts).run()
            yield follow(slices_in(namespace), slices, *parts).run()

    def _note(self) -> None:
        if self._pending is None:
            self._pending = asyncio.get_running_loop().call_soon(self._publish)

    def _publish(self) -> None:
        self._pending = None
        change = self._cluster.take_change()
        if change is None:
            return
        if change.directory is not None:
            self._log_conflicts(change.directory)
        self._listener(change)

    def _log_conflicts(self, directory: Directory) -> None:
        conflicts = conflicts_in(directory)
        for conflict in sorted(conflicts - self._known_conflicts, key=str):
            _log.warning("%s", conflict)
        self._known_conflicts = conflicts
