"""One look at a cluster, for the commands that only read. Decides nothing about what it means.

What may not be read is said in `unseen` and leaves a gap; what there is no way around (no cluster,
no CRD, no such resource) is a ClusterError. Called by `status`, `explain` and `precheck`.
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

Raw = Mapping[str, Any]
_PAGE = "500"
_PROXY_SECONDS = 3.0
# Each is asked by itself; more would only say the same.
_MOST_GATEWAYS = 8
AUTOSCALER = next(kind for kind in CHILDREN if kind.kind == "HorizontalPodAutoscaler")
_NO_SUCH_OBJECT = frozenset({403, 404})


@dataclass(frozen=True, slots=True)
class Look:
    """What the API server and the gateways said, as it came."""

    resources: tuple[Raw, ...]
    children: tuple[Raw, ...] = ()
    pods: tuple[Raw, ...] = ()
    slices: tuple[Raw, ...] = ()
    """EndpointSlices of the headless Services."""
    warnings: tuple[Raw, ...] = ()
    gateways: tuple[Raw, ...] = ()
    operators: tuple[Raw, ...] = ()
    routable: frozenset[tuple[str, str]] | None = None
    """Namespace and name of the pods that every gateway has; None where no gateway could be
    asked."""
    unseen: tuple[tuple[str, str], ...] = ()
    """What could not be read, and why."""


class Api(Protocol):
    """Raises ClusterError."""

    def send(
        self, method: str, path: str, query: Mapping[str, str] = ..., *, timeout: float = ...
    ) -> dict[str, Any]: ...


@dataclass(slots=True)
class Reader:
    """Reads lists, and remembers what it was not allowed to."""

    cluster: Api
    unseen: dict[str, str] = field(default_factory=dict)

    def list(self, kind: Kind, namespace: str, **query: str) -> tuple[Raw, ...]:
        try:
            return listed(self.cluster, kind, namespace, **query)
        except ClusterError as error:
            if error.status not in _NO_SUCH_OBJECT:
                raise
            if error.status == 403:
                where = f"in {namespace}" if namespace else "in all namespaces"
                self.unseen[f"{kind.plural} {where}"] = error.message
            return ()


def listed(cluster: Api, kind: Kind, namespace: str, **query: str) -> tuple[Raw, ...]:
    """All objects of a kind, whole: in a list they come without their kind."""
    items: list[Raw] = []
    more: dict[str, str] = {}
    while True:
        page = cluster.send("GET", kind.path(namespace), {**query, "limit": _PAGE, **more})
        items += [{"apiVersion": kind.api_version, "kind": kind.kind, **i} for i in page["items"]]
        if not (token := page["metadata"].get("continue")):
            return tuple(items)
        more = {"continue": token}


def look(cluster: Api, namespace: str, name: str = "", *, deep: bool = False) -> Look:
    """Everything about the resources of a namespace (empty: of all), or about one of them.

    `deep` reads every kind of child and the operator as well.
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
    sliced = f"{SERVICE_NAME}={pods_service(name)}"
    gateways = reader.list(POD, "", labelSelector=labelled(GATEWAY))
    return Look(
        resources=resources,
        children=tuple(child for some in children for child in some),
        pods=reader.list(POD, namespace, labelSelector=selector),
        slices=reader.list(ENDPOINT_SLICE, namespace, labelSelector=sliced) if deep else (),
        warnings=reader.list(EVENT, namespace, fieldSelector="type=Warning"),
        gateways=gateways,
        operators=reader.list(POD, "", labelSelector=labelled(OPERATOR)) if deep else (),
        routable=_routable(cluster, gateways),
        unseen=tuple(reader.unseen.items()),
    )


def labelled(component: str) -> str:
    """The label selector of a part of the product."""
    return f"{NAME}={PRODUCT},{COMPONENT}={component}"


def is_ready(pod: Raw) -> bool:
    conditions = pod.get("status", {}).get("conditions") or ()
    is_told = any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
    return is_told and "deletionTimestamp" not in pod["metadata"]


def _routable(cluster: Api, gateways: Iterable[Raw]) -> frozenset[tuple[str, str]] | None:
    """Asked through the API server, since gateways' admin port is closed to everyone else."""
    asked = [gateway for gateway in gateways if is_ready(gateway)][:_MOST_GATEWAYS]
    try:
        answered = [pool for gateway in asked if (pool := _pool(cluster, gateway)) is not None]
    except ClusterError:
        # A NetworkPolicy that drops silently does so for all; one wait is enough.
        return None
    return frozenset.intersection(*answered) if answered else None


def _pool(cluster: Api, gateway: Raw) -> frozenset[tuple[str, str]] | None:
    metadata = gateway["metadata"]
    pod = f"{metadata['name']}:{METRICS_PORT}"
    path = POD.path(metadata["namespace"], pod, "proxy/routable")
    try:
        page = cluster.send("GET", path, timeout=_PROXY_SECONDS)
        endpoints = [e for e in page["endpoints"] if e["ready"]]
        return frozenset((e["namespace"], e["pod"]) for e in endpoints)
    except ClusterError as error:
        if not error.status:
            raise
        return None
    except (ValueError, KeyError, TypeError):
        # Something else listens there: as good as nobody.
        return None
