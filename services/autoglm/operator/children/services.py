"""Services: a headless one whose EndpointSlices list the pods, and one for clients. Pure."""

from __future__ import annotations

from autoglm.api.labels import GRPC_PORT, HTTP_PORT, METRICS_PORT, pods_service
from autoglm.operator.children.metadata import Body, Context, child, selector


def cluster_service(context: Context) -> Body:
    """Return the Service for clients inside the cluster that use no gateway."""
    spec = {
        "type": "ClusterIP",
        "selector": selector(context.name),
        "ports": [_port("grpc", GRPC_PORT), _port("http", HTTP_PORT)],
    }
    return child(context, "v1", "Service") | {"spec": spec}


def headless_service(context: Context) -> Body:
    """Return the headless Service, for gateways, which route to pods, and for monitoring."""
    spec = {
        "clusterIP": "None",
        "selector": selector(context.name),
        "ports": [
            _port("grpc", GRPC_PORT),
            _port("http", HTTP_PORT),
            _port("metrics", METRICS_PORT),
        ],
    }
    return child(context, "v1", "Service", pods_service(context.name)) | {"spec": spec}


def _port(name: str, number: int) -> Body:
    # With the protocol, which is part of a port's key in server-side apply.
    port = {"name": name, "port": number, "targetPort": name, "protocol": "TCP"}
    return port | ({"appProtocol": "kubernetes.io/h2c"} if name == "grpc" else {})
