"""Envoy's configuration: fills the template `envoy.yaml` from the gateway's settings.

The template has the structure, the fixed numbers and their reasons. This module has what depends on
settings, and what repeats for each method, path and error. Also names that Envoy and the gateway
share.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path

from autoglm.common import errors, rpc, status
from autoglm.common.errors import AutoGLMError
from autoglm.common.tls import TlsFiles
from autoglm.gateway.edges import cors
from autoglm.gateway.edges.rest_request import BINARY_HEADER, MethodNotAllowed
from autoglm.gateway.edges.rest_response import GZIP_FROM_BYTES
from autoglm.gateway.envoy.template import filled
from autoglm.gateway.proxy.http_upstream import (
    CONNECT_SECONDS,
    KEEPALIVE_SECONDS,
    UPSTREAM_CORS_HEADERS,
)
from autoglm.gateway.request.grpc_methods import METHODS
from autoglm.gateway.request.request import Wire
from autoglm.gateway.settings import GatewaySettings
from autoglm.http1.rules import DEFAULT_TIMEOUTS
from autoglm.validation import http_errors
from autoglm.validation.http_apis import DIALECTS, INFERENCE_POSTS
from autoglm.validation.routing_hint import HINT_METADATA

# From the Gateway API Inference Extension's endpoint picker protocol.
DESTINATION_HEADER = "x-gateway-destination-endpoint"
# Namespaces of dynamic metadata: of the destination, and of the endpoints that may be picked.
DESTINATION_NAMESPACE = "envoy.lb"
SUBSET_NAMESPACE = "envoy.lb.subset_hint"
SUBSET_KEY = "x-gateway-destination-endpoint-subset"
SERVED_KEY = "x-gateway-destination-endpoint-served"
UPSTREAM_TIMEOUT = "x-envoy-upstream-rq-timeout-ms"
PLANE_HEADER = "x-autoglm-data-plane"
# The features that this data plane lacks.
PLANE_WITHOUT = "envoy; without=token-replay,hedging"
# Of client addresses; the connections of each are counted together.
GROUPS = 10
WINDOW_BYTES = 1024 * 1024
# Header fields that the picker sets on requests.
PICKER_HEADERS = (
    DESTINATION_HEADER,
    UPSTREAM_TIMEOUT,
    "grpc-timeout",
    rpc.AUTHORIZATION,
    status.REQUEST_ID,
    *rpc.TRACE_HEADERS,
    rpc.PREFIX_SALT,
    rpc.CACHE_SALT,
    rpc.RESPONSE_ID,
)
# Requests with these headers need the gateway's own servers: to decompress, to explain a routing
# decision, to find the JSON before binary tensors.
_OWN_HEADERS = ("content-encoding", "grpc-encoding", rpc.DEBUG_HEADER, BINARY_HEADER)
# Methods whose clients may send a routing hint, which spares the body.
HINTED_METHODS = frozenset(("Generate", "GenerateStream", "Chat", "ChatStream"))
# Space for the frame of a message, so that the longest message fits.
_ROOM_BYTES = 1024
_MOST_BYTES = 2**63 - 1
# The longest timeout of a check; requests may wait in the queue there.
_MAX_WAIT_SECONDS = 3600.0
# Fields that are not shown to the picker: those of the client's connection, and over gRPC the
# content type, with which Envoy would take a check that failed for one with status 200.
_HIDDEN = ("expect", "transfer-encoding", "upgrade")
_HIDDEN_OVER_GRPC = (*_HIDDEN, "content-type")
# Statuses of errors from 500 on, each with the one that the picker sends instead, since ext_authz
# passes none from 500 on. No error has one of these; a local reply restores the status.
_DENIED = {code: code - 20 for code in (500, 501, 502, 503, 504, 505)}
_INPUTS = "type.googleapis.com/envoy.extensions.matching.common_inputs.network.v3."
# The connection's other end, and the client that a PROXY header named.
_PEER, _CLIENT = f"{_INPUTS}DirectSourceIPInput", f"{_INPUTS}SourceIPInput"
_DIRECT = "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%"
_REMOTE = "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"
# For the first byte of a PROXY header, which proxies send at once.
_PROXY_SECONDS = 3.0
_REQUEST_ID = f"%REQ({status.REQUEST_ID})%"
_HINT_MATCH = {"headers": [{"name": HINT_METADATA, "present_match": True}]}


@dataclass(frozen=True, slots=True)
class Sockets:
    """Unix sockets between Envoy and the gateway, in a directory of their own.

    The directory has Envoy's configuration file, too.
    """

    directory: Path

    @property
    def config(self) -> Path:
        """Return the path of Envoy's configuration."""
        return self.directory / "envoy.yaml"

    @property
    def picker(self) -> str:
        """Return the socket of the picker."""
        return str(self.directory / "picker")

    @property
    def access_log(self) -> str:
        """Return the socket of the access log service."""
        return str(self.directory / "access-log")

    @property
    def grpc(self) -> str:
        """Return the socket of the gateway's own gRPC server."""
        return str(self.directory / "grpc")

    @property
    def http(self) -> str:
        """Return the socket of the gateway's own REST server."""
        return str(self.directory / "http")

    @property
    def admin(self) -> str:
        """Return the socket of Envoy's admin API."""
        return str(self.directory / "admin")


def bootstrap(
    settings: GatewaySettings, sockets: Sockets, listen: Mapping[Wire, tuple[str, int]]
) -> str:
    """Return Envoy's configuration as YAML; `listen` has the listeners' IP addresses and ports."""
    has_cors = bool(settings.allowed_origins)
    return filled(
        "bootstrap",
        {
            "tls": _tls(settings.server_tls),
            "proxy_protocol": _proxy_protocol(settings),
            "chain_matcher": [_chain_matcher(settings)],
            "grpc_chains": _limited_chains(settings, "grpc"),
            "http_chains": _limited_chains(settings, "http"),
            "own_grpc_routes": _own_routes("own-grpc", settings),
            "own_http_routes": _own_routes("own-http", settings),
            "grpc_pod_routes": _grpc_pod_routes(settings),
            "http_pod_routes": _http_pod_routes(settings),
            "grpc_picker": [_picker(settings, _HIDDEN_OVER_GRPC)],
            "http_picker": [_picker(settings, _HIDDEN)],
            "denied_replies": denied_replies(),
            "local_replies": local_replies(),
            "cors_filters": [filled("cors_filters", vary=cors.VARY)] if has_cors else (),
            "cors_policy": [_cors_policy(settings.allowed_origins)] if has_cors else (),
        },
        admin_socket=sockets.admin,
        picker_socket=sockets.picker,
        access_log_socket=sockets.access_log,
        grpc_socket=sockets.grpc,
        http_socket=sockets.http,
        # Of connections that a PROXY header named a client for, that one first.
        peer=f"{_REMOTE}, {_DIRECT}" if settings.trusted_proxies else _DIRECT,
        grpc_host=listen["grpc"][0],
        grpc_port=listen["grpc"][1],
        # Both families; for this address only.
        grpc_both=listen["grpc"][0] == "::",
        http_host=listen["http"][0],
        http_port=listen["http"][1],
        http_both=listen["http"][0] == "::",
        heap_bytes=settings.envoy_memory_bytes,
        connections=2 * settings.max_connections,
        max_streams=max(100, settings.max_inflight),
        window_bytes=WINDOW_BYTES,
        result_headers=status.RESULT_HEADERS,
        request_timeout=_seconds(settings.default_timeout_seconds),
        head_timeout=_seconds(DEFAULT_TIMEOUTS.head),
        client_idle_timeout=_seconds(DEFAULT_TIMEOUTS.idle),
        connect_timeout=_seconds(CONNECT_SECONDS),
        pod_idle_timeout=_seconds(KEEPALIVE_SECONDS),
        gzip_from_bytes=GZIP_FROM_BYTES,
    )


def denied_status(status: int) -> int:
    """Return the status with which the picker sends an error of this status to Envoy."""
    return _DENIED.get(status, status if status < 500 else _DENIED[500])


def _seconds(seconds: float) -> str:
    return f"{seconds:.3f}s"


def _chain_matcher(settings: GatewaySettings) -> str:
    """Return what puts a connection into the group of its client's address."""
    last = _group_name(0)
    proxies = []
    if settings.trusted_proxies:
        networks = [ip_network(each) for each in settings.trusted_proxies]
        ranges = [
            {"address_prefix": str(each.network_address), "prefix_len": each.prefixlen}
            for each in networks
        ]
        proxies = [
            filled(
                "proxies",
                {
                    "peer_is_proxy": [filled("in_networks", input=_PEER, networks=ranges)],
                    "client_is_proxy": [filled("in_networks", input=_CLIENT, networks=ranges)],
                    "groups": _groups(_CLIENT),
                },
                last=last,
            )
        ]
    return filled("chain_matcher", {"proxies": proxies, "groups": _groups(_PEER)}, last=last)


def _groups(address: str) -> Iterator[str]:
    """Yield a matcher for each group: by the last digit of an IPv4 address, or of an IPv6 /64."""
    for number in range(GROUPS):
        digits = "0123456789abcdef"[number::GROUPS]
        addresses = rf"[0-9.]*{number}|(?:[0-9a-f]{{1,4}}:){{3}}[0-9a-f]{{0,3}}[{digits}]:.*"
        yield filled("group", input=address, addresses=addresses, name=_group_name(number))


def _group_name(number: int) -> str:
    return f"addresses_{number}"


def _limited_chains(settings: GatewaySettings, wire: Wire) -> Iterator[str]:
    for number in range(GROUPS):
        yield filled(
            "limited_chain",
            {"manager": [f"- *{wire}\n"], "tls": _tls(settings.server_tls)},
            name=_group_name(number),
            stat_prefix=f"{wire}_{_group_name(number)}",
            most=settings.connections_per_address,
            head_timeout=_seconds(DEFAULT_TIMEOUTS.head),
        )


def _proxy_protocol(settings: GatewaySettings) -> list[str]:
    if not settings.trusted_proxies:
        return []
    return [filled("proxy_protocol", proxy_timeout=_seconds(_PROXY_SECONDS))]


def _picker(settings: GatewaySettings, hidden: Iterable[str]) -> str:
    return filled(
        "picker",
        timeout=_seconds(min(settings.max_timeout_seconds, _MAX_WAIT_SECONDS)),
        picker_headers=[{"exact": name} for name in PICKER_HEADERS],
        hidden=[{"exact": name} for name in hidden],
        body_bytes=settings.max_body_bytes + _ROOM_BYTES,
    )


def _own_routes(cluster: str, settings: GatewaySettings) -> Iterator[str]:
    found: list[object] = [{"name": name, "present_match": True} for name in _OWN_HEADERS]
    # Rejected by its announced length, where the picker would have to wait for the body.
    too_long = {"start": settings.max_body_bytes + _ROOM_BYTES, "end": _MOST_BYTES}
    found.append({"name": "content-length", "range_match": too_long})
    return (filled("own_route", header=header, cluster=cluster) for header in found)


def _grpc_pod_routes(settings: GatewaySettings) -> Iterator[str]:
    """Yield a route for each method but `bidi`, each message of which is routed by itself."""
    first = settings.first_token_timeout_seconds
    silence = max(first, settings.chunk_timeout_seconds, settings.slow_reader_seconds)
    longest = settings.queue_timeout_seconds + silence if first else 0.0
    for method in METHODS:
        if method.bidi:
            continue
        for is_hinted in (True, False) if method.name in HINTED_METHODS else (False,):
            yield filled(
                "grpc_pod_route",
                {
                    "request_id_headers": _request_id_headers(method.path),
                    "without_body": [filled("without_body")] if is_hinted else (),
                },
                match={"path": method.path} | (_HINT_MATCH if is_hinted else {}),
                default_timeout=_seconds(settings.default_timeout_seconds),
                max_timeout=_seconds(settings.max_timeout_seconds),
                idle_timeout=_seconds(longest if method.streaming else 0.0),
                body_bytes=settings.max_body_bytes + _ROOM_BYTES,
                pods_cors_headers=UPSTREAM_CORS_HEADERS,
            )


def _http_pod_routes(settings: GatewaySettings) -> Iterator[str]:
    for api in INFERENCE_POSTS:
        yield filled(
            "http_pod_route",
            {"request_id_headers": _request_id_headers("" if api.has_model else api.path)},
            path_kind="safe_regex" if api.has_model else "path",
            path={"regex": api.regex} if api.has_model else api.path,
            body_bytes=settings.max_body_bytes + _ROOM_BYTES,
            pods_cors_headers=UPSTREAM_CORS_HEADERS,
        )


def _request_id_headers(path: str) -> Iterator[str]:
    return _headers(http_errors.request_id_headers(_REQUEST_ID, path))


def _headers(values: Mapping[str, str]) -> Iterator[str]:
    return (filled("header", name=name, value=value) for name, value in values.items())


def _local_errors() -> Iterator[tuple[Mapping[str, object], AutoGLMError]]:
    """Yield Envoy's response flags (listed in its access-log documentation) with their errors."""

    def flags(*names: str) -> Mapping[str, object]:
        return {"response_flag_filter": {"flags": names}}

    def header(name: str, **match: str) -> Mapping[str, object]:
        return {"header_filter": {"header": {"name": name, "string_match": match}}}

    def unavailable(message: str) -> AutoGLMError:
        return errors.NoReadyEndpoint(f"{message}; try again later", retry_after=1.0)

    late = errors.DeadlineExceeded
    yield flags("UT", "DT"), late("the deadline passed before the pod responded")
    yield flags("SI"), late("the response stalled for too long")
    yield flags("DPE"), errors.InvalidRequest("the request violates its protocol")
    yield flags("UC", "UR", "UPE", "LR"), unavailable("the pod disconnected")
    yield flags("OM"), unavailable("the gateway has no memory left")
    # Rejections by the picker have that flag as well, but not this status.
    no_check = {"and_filter": {"filters": [flags("UAEX"), _is_status(503)]}}
    yield no_check, unavailable("the gateway's process does not respond")
    yield flags("UF", "UH", "UO", "URX", "NC"), unavailable("no pod could be reached")
    yield (
        header(":method", exact="CONNECT"),
        MethodNotAllowed("CONNECT is not supported; this is no proxy"),
    )
    yield (
        header(":authority", contains=","),
        errors.InvalidRequest("the request has several Host headers; send one"),
    )
    yield _is_status(408), late("the deadline passed before the body had arrived")


def _is_status(code: int) -> Mapping[str, object]:
    value = {"default_value": code, "runtime_key": f"autoglm.status.{code}"}
    return {"status_code_filter": {"comparison": {"op": "EQ", "value": value}}}


def local_replies() -> Iterator[str]:
    """Yield a mapper for each error and dialect; Envoy uses the first that matches."""
    for condition, error in _local_errors():
        for form, dialect in DIALECTS:
            rendered = http_errors.in_dialect(error, _REQUEST_ID, dialect)
            yield filled(
                "local_reply",
                {"headers": _headers(rendered.headers)},
                condition=condition,
                # The path may have a query string.
                path_regex=f"(?s)(?:{form})(?:\\?.*)?",
                status=rendered.status,
                body=http_errors.payload(error, _REQUEST_ID, dialect),
            )


def denied_replies() -> Iterator[str]:
    """Yield a mapper for each status that the picker cannot send as it is."""
    for code, sent in _DENIED.items():
        yield filled("denied_reply", condition=_is_status(sent), status=code)


def _cors_policy(origins: tuple[str, ...]) -> str:
    listed = [{"exact": origin} for origin in origins]
    return filled(
        "cors_policy",
        origins=[{"safe_regex": {"regex": ".+"}}] if cors.ANY in origins else listed,
        methods=cors.METHODS,
        headers=cors.HEADERS,
        exposed=cors.EXPOSED,
        max_age=str(cors.MAX_AGE_SECONDS),
    )


def _tls(files: TlsFiles) -> list[str]:
    if not files:
        return []
    authorities = filled(
        "client_ca", ca_file=files.ca_file, ca_directory=str(Path(files.ca_file).parent)
    )
    return [
        filled(
            "tls",
            {"client_ca": [authorities] if files.ca_file else ()},
            requires_client_certificate=bool(files.ca_file),
            cert_file=files.cert_file,
            key_file=files.key_file,
            cert_directory=str(Path(files.cert_file).parent),
        )
    ]
