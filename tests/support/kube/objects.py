"""Objects of the Kubernetes API that the gateway reads, as tests write them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from autoglm.api.labels import DEPLOYMENT, SERVICE_NAME, pods_service
from autoglm.kube.kinds import ENDPOINT_SLICE, RESOURCE

Object = dict[str, Any]


def agd(name: str, namespace: str = "default", **parts: Any) -> Object:
    """An AutoGLMDeployment; `created` sorts by age."""
    created = parts.pop("created", "2026-01-01T00:00:00Z")
    metadata = {"name": name, "namespace": namespace, "creationTimestamp": created}
    head = {"apiVersion": RESOURCE.api_version, "kind": RESOURCE.kind, "metadata": metadata}
    return {**head, "spec": {"model": {}} | parts.pop("spec", {}), **parts}


def endpoint_slice(
    deployment: str,
    pods: Mapping[str, str],
    *,
    namespace: str = "default",
    name: str = "",
    port: int = 50051,
    port_name: str = "grpc",
    conditions: Mapping[str, Mapping[str, bool]] | None = None,
) -> Object:
    """`pods` are addresses by pod name; `conditions` are those that are not plainly ready."""
    service, families = pods_service(deployment), {":" in host for host in pods.values()}
    labels = {DEPLOYMENT: deployment, SERVICE_NAME: service}
    return {
        "apiVersion": ENDPOINT_SLICE.api_version,
        "kind": ENDPOINT_SLICE.kind,
        "metadata": {"name": name or f"{service}-1", "namespace": namespace, "labels": labels},
        "addressType": "IPv6" if families == {True} else "IPv4",
        "ports": [{"name": port_name, "port": port, "protocol": "TCP"}],
        "endpoints": [
            {
                "addresses": [host],
                "conditions": {"ready": True} | dict((conditions or {}).get(pod, {})),
                "targetRef": {"kind": "Pod", "name": pod, "namespace": namespace},
            }
            for pod, host in pods.items()
        ],
    }
