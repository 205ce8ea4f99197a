"""NetworkPolicies: allow only the connections that replicas and loaders need. Pure.

Ingress: requests from gateways, metrics for gateways and monitoring, progress for the operator.
Egress: name resolution, spans, and, where a replica downloads, the model's source and its proxies.
A loader has egress for downloads. Kubernetes always allows kubelet's probes.
"""

from __future__ import annotations

from ipaddress import ip_address
from urllib.parse import urlsplit

from autoglm.api.labels import (
    COMPONENT,
    GATEWAY,
    GRPC_PORT,
    HTTP_PORT,
    METRICS_PORT,
    NAME,
    OPERATOR,
    PRODUCT,
)
from autoglm.operator.children.companions import account_annotations, tracing_endpoint
from autoglm.operator.children.loader import loader_selector
from autoglm.operator.children.metadata import Body, Context, child, selector
from autoglm.operator.children.weights import pod_downloads

_NAMESPACE = "kubernetes.io/metadata.name"
# Policies apply after the connection is forwarded to a DNS pod, which may listen on either.
_DNS_PORTS = (53, 5353)
# The address of NodeLocal DNSCache on every node.
_NODE_DNS = "169.254.20.10/32"
_OTLP_PORT = 4317
_GKE_IDENTITY = "iam.gke.io/gcp-service-account"
# Where pods of GKE get the tokens of their identity, with and without Dataplane V2.
_GKE_METADATA: Body = {
    "to": [
        {"ipBlock": {"cidr": "169.254.169.254/32"}},
        {"ipBlock": {"cidr": "169.254.169.252/32"}},
    ],
    "ports": [{"protocol": "TCP", "port": port} for port in (80, 988)],
}
# Variables that name another source than the usual one.
_MIRRORS = (
    *("HF_ENDPOINT", "MODELSCOPE_ENDPOINT", "MODELSCOPE_DOMAIN"),
    *("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"),
)
_DEFAULT_PORTS = {"https": 443, "http": 80}


def is_wanted(context: Context) -> bool:
    return context.spec.network.policy == "Strict"


def network_policy(context: Context) -> Body:
    settings = context.settings
    gateways = {
        **_in_namespace(settings.gateway_namespace),
        "podSelector": {"matchLabels": {NAME: PRODUCT, COMPONENT: GATEWAY}},
    }
    monitoring = _in_namespace(settings.monitoring_namespace)
    egress = [_name_resolution()]
    if endpoint := tracing_endpoint(context):
        port = _tcp(_port_of(endpoint) or _OTLP_PORT)
        peer = _peer(urlsplit(endpoint).hostname or "", context.namespace)
        egress.append({"to": [peer], "ports": port} if peer else {"ports": port})
    if pod_downloads(context.spec):
        egress.append(_downloads(context))
    if _GKE_IDENTITY in account_annotations(context):
        egress.append(_GKE_METADATA)
    spec = {
        "podSelector": {"matchLabels": selector(context.name)},
        # Both types: connections that no rule allows are denied.
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [
            {"from": [gateways], "ports": _tcp(GRPC_PORT, HTTP_PORT, METRICS_PORT)},
            {"from": [monitoring, _operators(context)], "ports": _tcp(METRICS_PORT)},
        ],
        "egress": egress,
    }
    return child(context, "networking.k8s.io/v1", "NetworkPolicy") | {"spec": spec}


def loader_policy(context: Context) -> Body:
    """Return the policy of the Job that fills the cache."""
    egress = [_name_resolution(), _downloads(context)]
    if _GKE_IDENTITY in account_annotations(context):
        egress.append(_GKE_METADATA)
    spec = {
        "podSelector": {"matchLabels": loader_selector(context.name)},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"from": [_operators(context)], "ports": _tcp(METRICS_PORT)}],
        "egress": egress,
    }
    name = f"{context.name}-loader"
    return child(context, "networking.k8s.io/v1", "NetworkPolicy", name) | {"spec": spec}


def _operators(context: Context) -> Body:
    return {
        **_in_namespace(context.settings.lease_namespace),
        "podSelector": {"matchLabels": {NAME: PRODUCT, COMPONENT: OPERATOR}},
    }


def _name_resolution() -> Body:
    cluster_dns = {
        **_in_namespace("kube-system"),
        "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
    }
    ports = [{"protocol": p, "port": n} for n in _DNS_PORTS for p in ("UDP", "TCP")]
    return {"to": [cluster_dns, {"ipBlock": {"cidr": _NODE_DNS}}], "ports": ports}


def _downloads(context: Context) -> Body:
    """Return the egress of downloads: hubs serve large files from other hosts, always by HTTPS."""
    mirrors = [e.value for e in context.spec.engine.env if e.name in _MIRRORS and e.value]
    ports = {443, *filter(None, map(_port_of, [*mirrors, *_proxies(context)]))}
    return {"ports": _tcp(*sorted(ports))}


def _proxies(context: Context) -> list[str]:
    """Return the URLs of the engine's proxies: those of spec.engine.env over the installation's."""
    defaults = context.settings.models.proxy
    urls = {"HTTPS_PROXY": defaults.https_proxy, "HTTP_PROXY": defaults.http_proxy, "ALL_PROXY": ""}
    for entry in context.spec.engine.env:
        if (name := entry.name.upper()) in urls:
            urls[name] = entry.value or ""
    return [url for url in urls.values() if url]


def _port_of(url: str) -> int | None:
    """Return the port of a URL, given or of its scheme; None without either."""
    try:
        parts = urlsplit(url)
        return parts.port or _DEFAULT_PORTS.get(parts.scheme)
    except ValueError:
        return None


def _peer(host: str, own_namespace: str) -> Body | None:
    """Return the peer of a host; None for a name that a policy cannot express."""
    try:
        address = ip_address(host)
        return {"ipBlock": {"cidr": f"{address}/{address.max_prefixlen}"}}
    except ValueError:
        parts = host.split(".")
    if len(parts) == 1:
        return _in_namespace(own_namespace)
    # SERVICE.NAMESPACE[.svc...]
    return _in_namespace(parts[1]) if len(parts) == 2 or parts[2] == "svc" else None


def _in_namespace(name: str) -> Body:
    return {"namespaceSelector": {"matchLabels": {_NAMESPACE: name}}}


def _tcp(*ports: int) -> list[Body]:
    return [{"protocol": "TCP", "port": port} for port in ports]
