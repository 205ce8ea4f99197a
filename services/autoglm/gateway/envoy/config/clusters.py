"""Envoy's clusters: the pods, and the gateway's own servers. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from autoglm.gateway.envoy.config.names import (
    DESTINATION_HEADER,
    DESTINATION_NAMESPACE,
    PROCESS_KEY,
    Sockets,
)
from autoglm.gateway.envoy.config.parts import TYPE, Json, pipe, seconds
from autoglm.gateway.proxy.http_upstream import CONNECT_SECONDS, KEEPALIVE_SECONDS
from autoglm.gateway.request.request import Wire

_HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
# Below the keep-alive timeout of the gateway's own HTTP server.
_OWN_IDLE_SECONDS = 60.0
# A pod on a lost node responds to no ping; then its streams end, and new requests are retried.
_PINGS: Mapping[str, Any] = {"interval": "20s", "timeout": "5s"}
_UNBOUNDED = 2**31 - 1
# An unreachable process has no requests and would be the least busy, so it is ejected briefly.
_PASS_OVER: Mapping[str, Any] = {
    "split_external_local_origin_errors": True,
    "consecutive_local_origin_failure": 1,
    "enforcing_consecutive_local_origin_failure": 100,
    "enforcing_local_origin_success_rate": 0,
    "enforcing_consecutive_5xx": 0,
    "enforcing_consecutive_gateway_failure": 0,
    "enforcing_success_rate": 0,
    "interval": "0.2s",
    "base_ejection_time": "0.5s",
    "max_ejection_time": "0.5s",
    "max_ejection_percent": 99,
}
# A request decided by a process returns to it; an undecided one goes to the first process.
_BY_PROCESS: Mapping[str, Any] = {
    "fallback_policy": "DEFAULT_SUBSET",
    "default_subset": {PROCESS_KEY: "0"},
    "subset_selectors": [{"keys": [PROCESS_KEY], "single_host_per_subset": True}],
}
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


def clusters(sockets: Sockets, processes: int) -> Sequence[Json]:
    """Return the clusters of an Envoy with so many processes; `sockets` are the first one's."""
    several = [sockets.of(number) for number in range(processes)]
    ends = [own_cluster(ends_cluster(x.number), [x.ends], "grpc") for x in several]
    return (
        _pickers([one.picker for one in several]),
        *_wire_clusters("grpc", [one.grpc for one in several]),
        *_wire_clusters("http", [one.http for one in several]),
        *(ends if processes > 1 else ()),
    )


def ends_cluster(process: int) -> str:
    """Return the cluster of a process's access log, where there are several processes."""
    return f"ends-{process}"


def _pickers(paths: Sequence[str]) -> Json:
    cluster = own_cluster("picker", paths, "grpc")
    if len(paths) == 1:
        return cluster
    # A busy process responds late, so the least busy one is used.
    return {**cluster, "lb_policy": "LEAST_REQUEST", "outlier_detection": _PASS_OVER}


def _wire_clusters(wire: Wire, paths: Sequence[str]) -> Sequence[Json]:
    """`paths` are the sockets of each process's own server."""
    own = own_cluster(f"own-{wire}", paths, wire)
    if len(paths) > 1:
        own["lb_subset_config"] = _BY_PROCESS
    return own, _pods(wire), _first_pod_then_own(wire)


def _first_pod_then_own(wire: Wire) -> Json:
    """Envoy's first attempt is on the pod in the header, the second on the gateway's own server.

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


def own_cluster(name: str, paths: Sequence[str], wire: Wire) -> Json:
    """Return a cluster of the gateway's own servers at these sockets, one for each process."""
    endpoints = [_own_endpoint(path, number) for number, path in enumerate(paths)]
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": seconds(CONNECT_SECONDS),
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": endpoints}],
        },
        "circuit_breakers": NO_BREAKERS,
        "typed_extension_protocol_options": {
            _HTTP_OPTIONS: _http2() if wire == "grpc" else _http1(_OWN_IDLE_SECONDS)
        },
    }


def _own_endpoint(path: str, process: int) -> Json:
    owner = {"filter_metadata": {DESTINATION_NAMESPACE: {PROCESS_KEY: str(process)}}}
    return {"endpoint": {"address": pipe(path)}, "metadata": owner}


def _http1(idle_seconds: float) -> Json:
    common = {"idle_timeout": seconds(idle_seconds)}
    return _options({"http_protocol_options": {}}) | {"common_http_protocol_options": common}


def _http2(keepalive: Mapping[str, Any] | None = None) -> Json:
    options = {"connection_keepalive": keepalive} if keepalive else {}
    return _options({"http2_protocol_options": options})


def _options(explicit: Json) -> Json:
    return {"@type": f"type.googleapis.com/{_HTTP_OPTIONS}", "explicit_http_config": explicit}
