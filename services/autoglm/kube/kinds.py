"""Keys of objects, and the kinds with their paths in the API. Constants only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from autoglm.api import API_VERSION, KIND
from autoglm.api.labels import PLURAL
from autoglm.api.profile import PROFILE_KIND, PROFILE_PLURAL


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """Identifies an object of one kind; a cluster-scoped one has no namespace."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of objects."""

    api_version: str
    kind: str
    plural: str

    @property
    def group(self) -> str:
        return self.api_version.rpartition("/")[0]

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """Return the path of an object or a collection; no namespace stands for all namespaces, or
        for a cluster-scoped kind."""
        root = "/apis" if self.group else "/api"
        parts = [root, self.api_version, *(("namespaces", namespace) if namespace else ())]
        return "/".join((*parts, self.plural, *(p for p in (name, subresource) if p)))


RESOURCE: Final = Kind(API_VERSION, KIND, PLURAL)
PROFILE: Final = Kind(API_VERSION, PROFILE_KIND, PROFILE_PLURAL)
"""Cluster-scoped."""
POD: Final = Kind("v1", "Pod", "pods")
WARNING: Final = Kind("v1", "Event", "events")
"""Events to read: core/v1 returns those of both APIs, such as kubelet's and the scheduler's."""
EVENT: Final = Kind("events.k8s.io/v1", "Event", "events")
"""Events to write, in the newer API."""
ENDPOINT_SLICE: Final = Kind("discovery.k8s.io/v1", "EndpointSlice", "endpointslices")
LEASE: Final = Kind("coordination.k8s.io/v1", "Lease", "leases")

CHILDREN: Final = (
    Kind("apps/v1", "Deployment", "deployments"),
    Kind("v1", "Service", "services"),
    Kind("v1", "ServiceAccount", "serviceaccounts"),
    Kind("v1", "ConfigMap", "configmaps"),
    Kind("autoscaling/v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers"),
    Kind("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets"),
    Kind("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies"),
    Kind("v1", "PersistentVolumeClaim", "persistentvolumeclaims"),
    Kind("batch/v1", "Job", "jobs"),
)
OPTIONAL_CHILDREN: Final = (
    Kind("monitoring.coreos.com/v1", "PodMonitor", "podmonitors"),
    Kind("keda.sh/v1alpha1", "ScaledObject", "scaledobjects"),
)
_BY_NAME: Final = {(k.api_version, k.kind): k for k in (*CHILDREN, *OPTIONAL_CHILDREN)}


def child_kind(api_version: str, kind: str) -> Kind:
    """Return the kind of a child. Raises KeyError for a kind that the operator does not manage."""
    return _BY_NAME[api_version, kind]
