"""What a cluster says of itself, for `autoglm precheck`. Reads; decides nothing.

A fact that may not be read is Unknown with the API server's words; one that is not there is None.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from autoglm.api.deployment import API_VERSION, GROUP
from autoglm.api.labels import GATEWAY, OPERATOR, PLURAL
from autoglm.cli.cluster import Cluster, ClusterError
from autoglm.cli.kube import Raw, labelled, listed
from autoglm.kube.kinds import POD, Kind

_REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
_CRD = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{PLURAL}.{GROUP}"
_NODE = Kind("v1", "Node", "nodes")
_STORAGE_CLASS = Kind("storage.k8s.io/v1", "StorageClass", "storageclasses")
# APIs that not every cluster has, each by a path that answers only where it works.
OPTIONAL_APIS: Mapping[str, str] = {
    "metrics": "/apis/metrics.k8s.io/v1beta1",
    "custom metrics": "/apis/custom.metrics.k8s.io",
    "PodMonitor": "/apis/monitoring.coreos.com/v1",
    "ScaledObject": "/apis/keda.sh/v1alpha1",
}


@dataclass(frozen=True, slots=True)
class Right:
    """Something that the user may or may not do."""

    verb: str
    resource: str
    group: str = ""

    def __str__(self) -> str:
        return f"{self.verb} {self.resource}"


RIGHTS_TO_DEPLOY = tuple(
    Right(verb, PLURAL, GROUP) for verb in ("get", "list", "create", "patch", "delete")
)
RIGHTS_TO_LOOK = (
    Right("list", "pods"),
    Right("list", "events"),
    Right("get", "pods/log"),
    Right("list", "deployments", "apps"),
    Right("list", "services"),
)


@dataclass(frozen=True, slots=True)
class Unknown:
    """What may not be read."""

    why: str


@dataclass(frozen=True, slots=True)
class Facts:
    version: str
    """As `v1.36.3`."""
    namespace_name: str
    namespace: Raw | Unknown | None = None
    crd: Raw | Unknown | None = None
    has_api: bool = False
    """Whether our API is served, which everybody may ask."""
    operators: tuple[Raw, ...] | Unknown = ()
    gateways: tuple[Raw, ...] | Unknown = ()
    denied: frozenset[Right] = frozenset()
    nodes: tuple[Raw, ...] | Unknown = ()
    pods: tuple[Raw, ...] | Unknown = ()
    """Of all namespaces, those that hold resources."""
    storage_classes: tuple[Raw, ...] | Unknown = ()
    claims: Mapping[str, Raw | Unknown | None] | None = None
    """PersistentVolumeClaims that the manifest names."""
    apis: frozenset[str] = frozenset()
    """Of OPTIONAL_APIS, those that answer."""
    refusals: tuple[tuple[str, str], ...] = ()
    """Resources of the manifest that the API server would refuse, and why."""


def gather(cluster: Cluster, namespace: str, manifests: Sequence[Mapping[str, Any]]) -> Facts:
    """Raises ClusterError where nobody answers at all."""
    version = cluster.send("GET", "/version")["gitVersion"]
    has_api = _read(cluster, f"/apis/{API_VERSION}") is not None
    claims = {name: None for name in map(_claim, manifests) if name}
    return Facts(
        version=version,
        namespace_name=namespace,
        namespace=_read(cluster, f"/api/v1/namespaces/{namespace}"),
        crd=_read(cluster, _CRD),
        has_api=has_api,
        operators=_list(cluster, POD, labelSelector=labelled(OPERATOR)),
        gateways=_list(cluster, POD, labelSelector=labelled(GATEWAY)),
        denied=frozenset(
            right
            for right in (*RIGHTS_TO_DEPLOY, *RIGHTS_TO_LOOK)
            if not _may(cluster, namespace, right)
        ),
        nodes=_list(cluster, _NODE),
        pods=_list(cluster, POD, fieldSelector="status.phase!=Succeeded,status.phase!=Failed"),
        storage_classes=_list(cluster, _STORAGE_CLASS),
        claims={name: _read(cluster, _claim_path(namespace, name)) for name in claims},
        apis=frozenset(
            name
            for name, path in OPTIONAL_APIS.items()
            if isinstance(_read(cluster, path), Mapping)
        ),
        refusals=tuple(_refusals(cluster, manifests)) if has_api else (),
    )


def _read(cluster: Cluster, path: str) -> Raw | Unknown | None:
    try:
        return cluster.send("GET", path)
    except ClusterError as error:
        if not error.status:
            raise
        return None if error.status == 404 else Unknown(error.message)


def _list(cluster: Cluster, kind: Kind, **query: str) -> tuple[Raw, ...] | Unknown:
    try:
        return listed(cluster, kind, "", **query)
    except ClusterError as error:
        if not error.status:
            raise
        return Unknown(error.message)


def _may(cluster: Cluster, namespace: str, right: Right) -> bool:
    resource, _, subresource = right.resource.partition("/")
    asked = {
        "namespace": namespace,
        "verb": right.verb,
        "group": right.group,
        "resource": resource,
        "subresource": subresource,
    }
    body = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": asked},
    }
    return bool(cluster.send("POST", _REVIEWS, body=body)["status"]["allowed"])


def _claim(manifest: Mapping[str, Any]) -> str:
    cache = manifest["spec"]["model"].get("cache") or {}
    return str(cache.get("claimName") or "")


def _claim_path(namespace: str, name: str) -> str:
    return f"/api/v1/namespaces/{namespace}/persistentvolumeclaims/{name}"


def _refusals(
    cluster: Cluster, manifests: Sequence[Mapping[str, Any]]
) -> Sequence[tuple[str, str]]:
    """By asking: the API server checks everything and writes nothing."""
    found = []
    for manifest in manifests:
        try:
            cluster.apply(manifest, dry_run=True, force=True)
        except ClusterError as error:
            found.append((manifest["metadata"]["name"], error.message))
    return found
