"""Discovers endpoints and resources from the Kubernetes API (`--kubernetes`). Read-only.

Connects the watches, the cluster's state and the listener. Events that arrive together are
published together.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from random import Random
from typing import TYPE_CHECKING, Any

from autoglm.api.labels import DEPLOYMENT
from autoglm.api.names import NO_RULES, NameRules
from autoglm.gateway.endpoints.deployments import Conflict, conflicts_in
from autoglm.gateway.endpoints.kubernetes_cluster import Change, Cluster
from autoglm.gateway.endpoints.kubernetes_objects import resource_of, slice_of
from autoglm.kube.kinds import ENDPOINT_SLICE, RESOURCE
from autoglm.kube.reflector import Connect, Reader, Reflector
from autoglm.kube.transport import Refused
from autoglm.kube.typed_store import typed

if TYPE_CHECKING:
    from autoglm.kube.client import Configuration

# Kubernetes copies a Service's labels to its EndpointSlices.
_PODS = (("labelSelector", DEPLOYMENT),)
_REMEDIES = {
    401: "; the credentials are not accepted any more",
    403: "; the gateway's role needs get, list and watch",
    404: "; install the CustomResourceDefinition (it comes with the chart)",
}
_log = logging.getLogger("autoglm.gateway")


async def configure(kubeconfig: str = "") -> Configuration:
    """Return the configuration of a client of the API server.

    Reads `kubeconfig`, $KUBECONFIG, the pod's service account or ~/.kube/config. Raises ValueError,
    and ModuleNotFoundError without the package.
    """
    # Imported here: nothing else of the gateway needs the package, which takes a second to import.
    from autoglm.kube import client

    file = kubeconfig or os.environ.get("KUBECONFIG", "")
    in_cluster = not file and "KUBERNETES_SERVICE_HOST" in os.environ
    tried = "the pod's service account" if in_cluster else f"kubeconfig {file or '~/.kube/config'}"
    try:
        return await client.configure(file or ("" if in_cluster else "~/.kube/config"))
    except (client.ConfigException, OSError) as error:
        raise ValueError(
            f"no access to the Kubernetes API by {tried}: {error}; "
            "run in a pod with a service account, or give --kubeconfig FILE"
        ) from error


@asynccontextmanager
async def connect(kubeconfig: str = "") -> AsyncIterator[Reader]:
    """Connect with freshly read credentials, so that renewed ones are used. Raises ValueError."""
    configuration = await configure(kubeconfig)
    from autoglm.kube.client import reading

    async with reading(configuration, "gateway") as reader:
        yield reader


def with_remedy(error: Refused) -> str:
    """Return the message of a refusal, with the way out."""
    remedy = _REMEDIES.get(error.status, "")
    return f"the API server returned {error.status}: {error.message}{remedy}"


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
        self._cluster = Cluster(rules, self._note)
        self._known_conflicts: frozenset[Conflict] = frozenset()
        self._pending: asyncio.Handle | None = None

    async def run(self) -> None:
        """Watch until cancelled."""
        await asyncio.gather(*(reflector.run() for reflector in self._reflectors()))

    def _reflectors(self) -> Iterator[Reflector[Any]]:
        for namespace in self._namespaces:
            where = f"namespace {namespace}" if namespace else "all namespaces"
            resources = typed(
                f"{RESOURCE.plural} of {where}", RESOURCE.path(namespace), resource_of
            )
            slices = typed(
                f"{ENDPOINT_SLICE.plural} of {where}",
                ENDPOINT_SLICE.path(namespace),
                slice_of,
                _PODS,
            )
            parts = (self._connect, self._rng)
            yield Reflector(resources, self._cluster.resource_store(), *parts, explain=with_remedy)
            yield Reflector(slices, self._cluster.slice_store(), *parts, explain=with_remedy)

    def _note(self) -> None:
        if self._pending is None:
            self._pending = asyncio.get_running_loop().call_soon(self._publish)

    def _publish(self) -> None:
        self._pending = None
        change = self._cluster.take_change()
        if change is None:
            return
        if change.directory is not None:
            conflicts = conflicts_in(change.directory)
            for conflict in sorted(conflicts - self._known_conflicts, key=str):
                _log.warning("%s", conflict)
            self._known_conflicts = conflicts
        self._listener(change)
