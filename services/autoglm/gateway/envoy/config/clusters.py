"""Envoy's clusters: the pods, and the gateway's own servers. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from autoglm.gateway.envoy.config.names import DESTINATION_HEADER, Sockets
from autoglm.gateway.envoy.config.parts import TYPE, Json, pipe, seconds
from autoglm.gateway.proxy.http_upstream import CONNECT_SECONDS, KEEPALIVE_SECONDS
from autoglm.gateway.request.request import Wire

_HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
# Below the keep-alive timeout of the gateway's own HTTP server.
_OWN_IDLE_SECONDS = 60.0
# A pod on a lost node responds to no ping; then its streams end, and new requests are retried.
_PINGS: Mapping[str, Any] = {"interval": "20s", "timeout": "5s"}
_UNBOUNDED = 2**31 - 1
# Admission bounds the requests in flight for each model and tenant; Envoy's default is 1024.
NO_BREAKERS: Mapping[str, Any] = {
    "thresholds": [
        {
            "max_connections": _UNBOUNDED,
            "max_pending_requests": _UNBOUNDED,
            "max_requests": _UNBOUNDED,
            "max_retries": _UNBOUNDED,
        }
    ]
}


def clusters(sockets: Sockets) -> Sequence[Json]:
    """Return the clusters of Envoy."""
    return (
        own_cluster("picker", sockets.picker, "grpc"),
        *_wire_clusters("grpc", sockets.grpc),
        *_wire_clusters("http", sockets.http),
    )


def _wire_clusters(wire: Wire, path: str) -> Sequence[Json]:
    """Return the clusters of the wires; `path` is the socket of the gateway's own server."""
    return own_cluster(f"own-{wire}", path, wire), _pods(wire), _first_pod_then_own(wire)


def _first_pod_then_own(wire: Wire) -> Json:
    """Send the first attempt to the pod in the header, the second to the gateway's own server.

    Without a pod in the header, so is the first.
    """
    return {
        "name": f"call-{wire}",
        "connect_timeout": seconds(CONNECT_SECONDS),
        "lb_policy": "CLUSTER_PROVIDED",
        "cluster_type": {
            "name": "envoy.clusters.composite",
            "typed_config": {
                "@type": f"{TYPE}.extensions.clusters.composite.v3.ClusterConfig",
                "clusters": [{"name": f"pods-{wire}"}, {"name": f"own-{wire}"}],
            },
        },
        "circuit_breakers": NO_BREAKERS,
    }


def _pods(wire: Wire) -> Json:
    return {
        "name": f"pods-{wire}",
        "type": "ORIGINAL_DST",
        "lb_policy": "CLUSTER_PROVIDED",
        "connect_timeout": seconds(CONNECT_SECONDS),
        "original_dst_lb_config": {
            "use_http_header": True,
            "http_header_name": DESTINATION_HEADER,
        },
        "circuit_breakers": NO_BREAKERS,
        "typed_extension_protocol_options": {
            _HTTP_OPTIONS: _http2(_PINGS) if wire == "grpc" else _http1(KEEPALIVE_SECONDS)
        },
    }


def own_cluster(name: str, path: str, wire: Wire) -> Json:
    """Return a cluster of one of the gateway's own servers, at the socket `path`."""
    endpoint = {"endpoint": {"address": pipe(path)}}
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": seconds(CONNECT_SECONDS),
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [endpoint]}],
        },
        "circuit_breakers": NO_BREAKERS,
        "typed_extension_protocol_options": {
            _HTTP_OPTIONS: _http2() if wire == "grpc" else _http1(_OWN_IDLE_SECONDS)
        },
    }


def _http1(idle_seconds: float) -> Json:
    common = {"idle_timeout": seconds(idle_seconds)}
    return _options({"http_protocol_options": {}}) | {"common_http_protocol_options": common}


def _http2(keepalive: Mapping[str, Any] | None = None) -> Json:
    options = {"connection_keepalive": keepalive} if keepalive else {}
    return _options({"http2_protocol_options": options})


def _options(explicit: Json) -> Json:
    return {"@type": f"type.googleapis.com/{_HTTP_OPTIONS}", "explicit_http_config": explicit}
