"""Labels, annotations and ports of Kubernetes objects that several services share. Constants only.

The operator sets them, gateway and CLI select by them, the chart repeats them (a test compares).
"""

from __future__ import annotations

FIELD_MANAGER = "autoglm-operator"
PLURAL = "autoglmdeployments"

NAME = "app.kubernetes.io/name"
COMPONENT = "app.kubernetes.io/component"
MANAGED_BY = "app.kubernetes.io/managed-by"
DEPLOYMENT = "autoglm.io/deployment"
REVISION = "autoglm.io/revision"
WEIGHTS = "autoglm.io/weights"
"""What a loader's Job downloads, as a hash."""

OPERATOR_LEASE = "autoglm.io/operator"
"""Annotation: the Lease of the installation that reconciles the resource, as NAMESPACE/NAME."""
OPERATOR_CLASS = "autoglm.io/operator-class"
"""Annotation: the class of that installation."""

PRODUCT = "open-autoglm"
INFERENCE = "inference"
LOADER = "loader"
GATEWAY = "gateway"
OPERATOR = "operator"

GPU = "nvidia.com/gpu"

GRPC_PORT = 50051
HTTP_PORT = 8000
METRICS_PORT = 9090
# Kubernetes' own label on the EndpointSlices of a Service.
SERVICE_NAME = "kubernetes.io/service-name"


def pods_service(deployment: str) -> str:
    """Return the name of the headless Service whose EndpointSlices list a resource's pods."""
    return f"{deployment}-pods"
