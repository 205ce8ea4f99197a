"""Reads the state of a cluster, for `status`, `explain` and `precheck`. Interprets nothing.

Lists that the user is forbidden to read are empty and named in `not_accessible`. Without a cluster,
the CRD or the resource, ClusterError is raised.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from autoglm.api.labels import (
    COMPONENT,
    DEPLOYMENT,
    GATEWAY,
    INFERENCE,
    METRICS_PORT,
    NAME,
    OPERATOR,
    PRODUCT,
    SERVICE_NAME,
    pods_service,
)
from autoglm.cli.cluster import ClusterError
from autoglm.kube.kinds import CHILDREN, ENDPOINT_SLICE, OPTIONAL_CHILDREN, POD, RESOURCE, Kind
from autoglm.kube.kinds import WARNING as EVENT
from autoglm.kube.transport import Pages
from autoglm.operator.status.pods import condition

Raw = Mapping[str, Any]
_PROXY_SECONDS = 3.0
# Gateways are polled one by one; all of them should have the same pool.
_MOST_GATEWAYS = 8
AUTOSCALER = next(kind for kind in CHILDREN if kind.kind == "HorizontalPodAutoscaler")
# Forbidden, or a kind that the cluster does not have: the list is taken as empty.
_SKIPPED_STATUSES = frozenset({403, 404})


@dataclass(frozen=True, slots=True)
class ClusterState:
    """Objects of the API server and pools of the gateways, as read."""

    resources: tuple[Raw, ...]
    children: tuple[Raw, ...] = ()
    pods: tuple[Raw, ...] = ()
    slices: tuple[Raw, ...] = ()
    """EndpointSlices of the headless Services."""
    warnings: tuple[Raw, ...] = ()
    gateways: tuple[Raw, ...] = ()
    operators: tuple[Raw, ...] = ()
    routable: frozenset[tuple[str, str]] | None = None
    """Namespace and name of the pods in the pools of all gateways; None if no gateway responded."""
    not_accessible: tuple[tuple[str, str], ...] = ()
    """Lists that the user is forbidden to read, with the API server's message."""


class Api(Protocol):
    """Raises ClusterError."""

    def send(
        self, method: str, path: str, query: Mapping[str, str] = ..., *, timeout: float = ...
    ) -> dict[str, Any]: ...


@dataclass(slots=True)
class Reader:
    """Reads lists, and records those that the user is forbidden to read."""

    cluster: Api
    not_accessible: dict[str, str] = field(default_factory=dict)

    def list(self, kind: Kind, namespace: str, **query: str) -> tuple[Raw, ...]:
        try:
            return listed(self.cluster, kind, namespace, **query)
        except ClusterError as error:
            if error.status not in _SKIPPED_STATUSES:
                raise
            if error.status == 403:
                where = f"in {namespace}" if namespace else "in all namespaces"
                self.not_accessible[f"{kind.plural} {where}"] = error.message
            return ()


def listed(cluster: Api, kind: Kind, namespace: str, **query: str) -> tuple[Raw, ...]:
    """Return all objects of a kind, with the kind and version that items of a list lack."""
    items: list[Raw] = []
    pages = Pages(tuple(query.items()))
    for page_query in pages:
        page = cluster.send("GET", kind.path(namespace), dict(page_query))
        items += [{"apiVersion": kind.api_version, "kind": kind.kind, **i} for i in page["items"]]
        pages.token = page["metadata"].get("continue") or ""
    return tuple(items)


def read_state(cluster: Api, namespace: str, name: str = "", *, deep: bool = False) -> ClusterState:
    """Read the resources of a namespace (empty: of all), or one of them, and related objects.

    `deep` reads all kinds of children and the operator as well.
    """
    resources: tuple[Raw, ...]
    if name:
        resources = (cluster.send("GET", RESOURCE.path(namespace, name)),)
    else:
        resources = listed(cluster, RESOURCE, namespace)
    reader = Reader(cluster)
    selector = labelled(INFERENCE) + (f",{DEPLOYMENT}={name}" if name else "")
    kinds = (*CHILDREN, *OPTIONAL_CHILDREN) if deep else (AUTOSCALER,)
    children = [reader.list(kind, namespace, labelSelector=selector) for kind in kinds]
    of_service = f"{SERVICE_NAME}={pods_service(name)}"
    gateways = reader.list(POD, "", labelSelector=labelled(GATEWAY))
    return ClusterState(
        resources=resources,
        children=tuple(child for some in children for child in some),
        pods=reader.list(POD, namespace, labelSelector=selector),
        slices=reader.list(ENDPOINT_SLICE, namespace, labelSelector=of_service) if deep else (),
        warnings=reader.list(EVENT, namespace, fieldSelector="type=Warning"),
        gateways=gateways,
        operators=reader.list(POD, "", labelSelector=labelled(OPERATOR)) if deep else (),
        routable=_routable(cluster, gateways),
        not_accessible=tuple(reader.not_accessible.items()),
    )


def labelled(component: str) -> str:
    """Return the label selector of a component."""
    return f"{NAME}={PRODUCT},{COMPONENT}={component}"


def is_ready(pod: Raw) -> bool:
    """Return whether a pod is ready and not being deleted."""
    is_deleted = "deletionTimestamp" in pod["metadata"]
    return not is_deleted and condition(pod, "Ready").get("status") == "True"


def _routable(cluster: Api, gateways: Iterable[Raw]) -> frozenset[tuple[str, str]] | None:
    """Return the pods in all gateways' pools, read through the API server's proxy; None without.

    NetworkPolicies close the gateways' admin port to other clients.
    """
    pools = []
    for gateway in [gateway for gateway in gateways if is_ready(gateway)][:_MOST_GATEWAYS]:
        metadata = gateway["metadata"]
        pod = f"{metadata['name']}:{METRICS_PORT}"
        path = POD.path(metadata["namespace"], pod, "proxy/routable")
        try:
            page = cluster.send("GET", path, timeout=_PROXY_SECONDS)
            endpoints = [e for e in page["endpoints"] if e["ready"]]
            pools.append(frozenset((e["namespace"], e["pod"]) for e in endpoints))
        except ClusterError as error:
            if not error.status:
                # A NetworkPolicy that drops packets does so for all gateways: one time-out is
                # enough.
                return None
        except (ValueError, KeyError, TypeError):
            # Another server listens there.
            continue
    return frozenset.intersection(*pools) if pools else None
