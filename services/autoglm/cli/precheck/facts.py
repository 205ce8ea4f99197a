"""Reads the facts about a cluster that `autoglm precheck` checks.

A fact that is forbidden to read is NotAccessible with the API server's message; a missing one None.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
# Of the first request; a server that is up responds sooner.
_TIMEOUT_SECONDS = 5.0
# Optional APIs of a cluster, each by a path that is served only if the API is available.
OPTIONAL_APIS: Mapping[str, str] = {
    "metrics": "/apis/metrics.k8s.io/v1beta1",
    "custom metrics": "/apis/custom.metrics.k8s.io",
    "PodMonitor": "/apis/monitoring.coreos.com/v1",
    "ScaledObject": "/apis/keda.sh/v1alpha1",
}


@dataclass(frozen=True, slots=True)
class Permission:
    """A permission of the user, as RBAC has it."""

    verb: str
    resource: str
    group: str = ""

    def __str__(self) -> str:
        return f"{self.verb} {self.resource}"


DEPLOY_PERMISSIONS = tuple(
    Permission(verb, PLURAL, GROUP) for verb in ("get", "list", "create", "patch", "delete")
)
INSPECT_PERMISSIONS = (
    Permission("list", "pods"),
    Permission("list", "events"),
    Permission("get", "pods/log"),
    Permission("list", "deployments", "apps"),
    Permission("list", "services"),
)


@dataclass(frozen=True, slots=True)
class NotAccessible:
    """An object or list that is not readable, with the API server's message."""

    why: str


@dataclass(frozen=True, slots=True)
class Facts:
    """Facts about a cluster."""

    version: str
    """Version of Kubernetes, such as v1.36.3."""
    namespace_name: str
    namespace: Raw | NotAccessible | None = None
    crd: Raw | NotAccessible | None = None
    has_api: bool = False
    """Whether the API of AutoGLMDeployment is served; reading that needs no permission."""
    operators: tuple[Raw, ...] | NotAccessible = ()
    gateways: tuple[Raw, ...] | NotAccessible = ()
    denied: frozenset[Permission] = frozenset()
    nodes: tuple[Raw, ...] | NotAccessible = ()
    pods: tuple[Raw, ...] | NotAccessible = ()
    """Pods of all namespaces that have resources allocated."""
    storage_classes: tuple[Raw, ...] | NotAccessible = ()
    claims: Mapping[str, Raw | NotAccessible | None] | None = None
    """PersistentVolumeClaims of the manifest."""
    apis: frozenset[str] = frozenset()
    """Available ones of OPTIONAL_APIS."""
    rejections: tuple[tuple[str, str], ...] = ()
    """Resources of the manifest that the API server would reject, and its messages."""


def gather(
    cluster: Cluster,
    namespace: str,
    manifests: Sequence[Mapping[str, Any]],
    say: Callable[[str], None],
) -> Facts:
    """Read all facts, after `say` of what comes. Raises ClusterError if there is no API server."""
    say(f"the API server (at most {_TIMEOUT_SECONDS:.0f} s)")
    version = cluster.send("GET", "/version", timeout=_TIMEOUT_SECONDS)["gitVersion"]
    has_api = _read(cluster, f"/apis/{API_VERSION}") is not None
    caches = [manifest["spec"]["model"].get("cache") or {} for manifest in manifests]
    claims = dict.fromkeys(str(name) for cache in caches if (name := cache.get("claimName")))
    volumes = f"/api/v1/namespaces/{namespace}/persistentvolumeclaims"
    rejections: list[tuple[str, str]] = []
    for manifest in manifests if has_api else ():
        say(f"manifest {manifest['metadata']['name']}")
        try:
            cluster.apply(manifest, dry_run=True, force=True)
        except ClusterError as error:
            rejections.append((manifest["metadata"]["name"], error.message))
    say("permissions, nodes, pods and volumes")
    return Facts(
        version=version,
        namespace_name=namespace,
        namespace=_read(cluster, f"/api/v1/namespaces/{namespace}"),
        crd=_read(cluster, _CRD),
        has_api=has_api,
        operators=_list(cluster, POD, labelSelector=labelled(OPERATOR)),
        gateways=_list(cluster, POD, labelSelector=labelled(GATEWAY)),
        denied=frozenset(
            permission
            for permission in (*DEPLOY_PERMISSIONS, *INSPECT_PERMISSIONS)
            if not _is_allowed(cluster, namespace, permission)
        ),
        nodes=_list(cluster, _NODE),
        pods=_list(cluster, POD, fieldSelector="status.phase!=Succeeded,status.phase!=Failed"),
        storage_classes=_list(cluster, _STORAGE_CLASS),
        claims={name: _read(cluster, f"{volumes}/{name}") for name in claims},
        apis=frozenset(
            name
            for name, path in OPTIONAL_APIS.items()
            if isinstance(_read(cluster, path), Mapping)
        ),
        rejections=tuple(rejections),
    )


def _read(cluster: Cluster, path: str) -> Raw | NotAccessible | None:
    try:
        return cluster.send("GET", path)
    except ClusterError as error:
        if not error.status:
            raise
        return None if error.status == 404 else NotAccessible(error.message)


def _list(cluster: Cluster, kind: Kind, **query: str) -> tuple[Raw, ...] | NotAccessible:
    try:
        return listed(cluster, kind, "", **query)
    except ClusterError as error:
        if not error.status:
            raise
        return NotAccessible(error.message)


def _is_allowed(cluster: Cluster, namespace: str, permission: Permission) -> bool:
    resource, _, subresource = permission.resource.partition("/")
    attributes = {
        "namespace": namespace,
        "verb": permission.verb,
        "group": permission.group,
        "resource": resource,
        "subresource": subresource,
    }
    body = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": attributes},
    }
    return bool(cluster.send("POST", _REVIEWS, body=body)["status"]["allowed"])
