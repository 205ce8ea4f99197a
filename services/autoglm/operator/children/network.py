"""NetworkPolicy: allows only the connections of a replica that serving needs. Pure.

Ingress: requests from gateways, metrics for gateways and monitoring. Egress: name resolution,
spans, and the model hub unless the model is on a volume. Kubernetes always allows kubelet's probes.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address
from urllib.parse import urlsplit

from autoglm.api.labels import (
    COMPONENT,
    GATEWAY,
    GRPC_PORT,
    HTTP_PORT,
    METRICS_PORT,
    NAME,
    PRODUCT,
)
from autoglm.operator.children.companions import tracing_endpoint
from autoglm.operator.children.metadata import Body, Context, child, selector
from autoglm.operator.children.sources import hub_ports, port_of

_NAMESPACE = "kubernetes.io/metadata.name"
# Policies apply after the connection is forwarded to a DNS pod, which may listen on either.
_DNS_PORTS = (53, 5353)
# The address of NodeLocal DNSCache on every node.
_NODE_DNS = "169.254.20.10/32"
_OTLP_PORT = 4317


def is_wanted(context: Context) -> bool:
    return context.spec.network.policy == "Strict"


def network_policy(context: Context) -> Body:
    spec = {
        "podSelector": {"matchLabels": selector(context.name)},
        # Both types: connections that no rule allows are denied.
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [_from_gateways(context), _from_monitoring(context)],
        "egress": [_to_dns(), *_to_telemetry(context), *_to_hub(context)],
    }
    return child(context, "networking.k8s.io/v1", "NetworkPolicy") | {"spec": spec}


def _from_gateways(context: Context) -> Body:
    gateways = {
        **_in_namespace(context.settings.gateway_namespace),
        "podSelector": {"matchLabels": {NAME: PRODUCT, COMPONENT: GATEWAY}},
    }
    return {"from": [gateways], "ports": _tcp(GRPC_PORT, HTTP_PORT, METRICS_PORT)}


def _from_monitoring(context: Context) -> Body:
    monitoring = _in_namespace(context.settings.monitoring_namespace)
    return {"from": [monitoring], "ports": _tcp(METRICS_PORT)}


def _to_dns() -> Body:
    cluster_dns = {
        **_in_namespace("kube-system"),
        "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
    }
    ports = [{"protocol": p, "port": n} for n in _DNS_PORTS for p in ("UDP", "TCP")]
    return {"to": [cluster_dns, {"ipBlock": {"cidr": _NODE_DNS}}], "ports": ports}


def _to_telemetry(context: Context) -> Iterable[Body]:
    if endpoint := tracing_endpoint(context):
        port = _tcp(port_of(endpoint) or _OTLP_PORT)
        peer = _peer(urlsplit(endpoint).hostname or "", context.namespace)
        yield {"to": [peer], "ports": port} if peer else {"ports": port}


def _to_hub(context: Context) -> Iterable[Body]:
    if ports := hub_ports(context.spec):
        yield {"ports": _tcp(*ports)}


def _peer(host: str, own_namespace: str) -> Body | None:
    """Return the peer of a host; None for a name that a policy cannot express."""
    try:
        address = ip_address(host)
    except ValueError:
        return _service_peer(host.split("."), own_namespace)
    return {"ipBlock": {"cidr": f"{address}/{address.max_prefixlen}"}}


def _service_peer(parts: list[str], own_namespace: str) -> Body | None:
    if len(parts) == 1:
        return _in_namespace(own_namespace)
    # SERVICE.NAMESPACE[.svc...]
    return _in_namespace(parts[1]) if len(parts) == 2 or parts[2] == "svc" else None


def _in_namespace(name: str) -> Body:
    return {"namespaceSelector": {"matchLabels": {_NAMESPACE: name}}}


def _tcp(*ports: int) -> list[Body]:
    return [{"protocol": "TCP", "port": port} for port in ports]
