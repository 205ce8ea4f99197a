"""Builds Envoy's configuration from the gateway's settings. Pure.

Two listeners, gRPC and HTTP. A request for a pod is first sent to the picker (`ext_proc_edge`),
which sets a header with the pod's address or responds itself. All other requests, and those that
need a feature that Envoy lacks, are routed to the gateway's own servers on Unix sockets. If the
attempt on a pod fails before its response, Envoy's retry is routed there as well, which pick again.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from autoglm.common import rpc, status
from autoglm.common.tls import TlsFiles
from autoglm.gateway.edges import cors
from autoglm.gateway.edges.rest_response import GZIP_FROM_BYTES
from autoglm.gateway.envoy.config.clusters import clusters
from autoglm.gateway.envoy.config.local_replies import local_replies
from autoglm.gateway.envoy.config.names import DESTINATION_HEADER, Sockets
from autoglm.gateway.envoy.config.overload import overload_manager
from autoglm.gateway.envoy.config.parts import (
    EXT_PROC,
    EXT_PROC_TYPE,
    TYPE,
    Json,
    header,
    pipe,
    seconds,
)
from autoglm.gateway.envoy.config.routes import routes
from autoglm.gateway.request.request import Wire
from autoglm.gateway.settings import GatewaySettings

Where = tuple[str, int]
_CORS = "envoy.filters.http.cors"
WINDOW_BYTES = 1024 * 1024
# Envoy closes a connection with more frames waiting for the client, and all of its streams. A token
# is a frame, so a connection with hundreds of streams soon exceeds Envoy's default of 10,000.
_MOST_FRAMES = 200_000
# The delay between the end of a request and its access log entry.
_LOG_FLUSH_SECONDS = 0.01
# The longest timeout of a message to the picker; requests may wait in the queue there.
_MOST_MESSAGE_SECONDS = 3600.0


def bootstrap(settings: GatewaySettings, sockets: Sockets, listen: Mapping[Wire, Where]) -> Json:
    """Return Envoy's bootstrap configuration; `listen` has the resolved listener addresses."""
    return {
        "node": {"id": "autoglm-gateway", "cluster": "autoglm"},
        "admin": {"address": pipe(sockets.admin)},
        "overload_manager": overload_manager(settings),
        "static_resources": {
            "listeners": [
                _listener("grpc", listen["grpc"], settings),
                _listener("http", listen["http"], settings),
            ],
            "clusters": list(clusters(sockets)),
        },
    }


def _listener(wire: Wire, where: Where, settings: GatewaySettings) -> Json:
    host, port = where
    chain: Json = {
        "filters": [
            {
                "name": "envoy.filters.network.http_connection_manager",
                "typed_config": _connection_manager(wire, settings),
            }
        ]
    }
    if settings.server_tls:
        chain["transport_socket"] = _server_tls(settings.server_tls)
    return {
        "name": wire,
        "address": {"socket_address": {"address": host, "port_value": port}},
        "filter_chains": [chain],
    }


def _connection_manager(wire: Wire, settings: GatewaySettings) -> Json:
    is_http = wire == "http"
    manager = f"{TYPE}.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
    return {
        "@type": manager,
        "stat_prefix": wire,
        "codec_type": "HTTP2" if wire == "grpc" else "AUTO",
        "use_remote_address": True,
        "generate_request_id": False,
        "preserve_external_request_id": True,
        "early_header_mutation_extensions": [_request_keys()],
        "server_header_transformation": "PASS_THROUGH",
        "stream_idle_timeout": "0s",
        # A gRPC client may send its stream of requests over any time.
        "request_timeout": seconds(settings.default_timeout_seconds if is_http else 0.0),
        "http2_protocol_options": {
            "max_concurrent_streams": max(100, settings.max_inflight),
            "max_outbound_frames": _MOST_FRAMES,
            # The most bytes of a body that may be in transit beyond the limit.
            "initial_stream_window_size": WINDOW_BYTES,
        },
        "access_log": [_access_log()],
        **({"local_reply_config": local_replies()} if is_http else {}),
        "http_filters": [
            *(_cors_filters(settings) if is_http else []),
            *([_gzip()] if is_http else []),
            {"name": EXT_PROC, "typed_config": _picker(settings)},
            {
                "name": "envoy.filters.http.router",
                "typed_config": {
                    "@type": f"{TYPE}.extensions.filters.http.router.v3.Router",
                    # The gateway sets timeouts by headers; those of clients are ignored.
                    "suppress_envoy_headers": True,
                },
            },
        ],
        "route_config": {
            "name": wire,
            "virtual_hosts": [
                {
                    "name": wire,
                    "domains": ["*"],
                    "routes": routes(wire, settings),
                    **(_cors_policy(settings) if is_http else {}),
                }
            ],
        },
    }


def _cors_filters(settings: GatewaySettings) -> list[Json]:
    """Return the first filters: errors have the headers too; Envoy's CORS filter sets no Vary."""
    if not settings.allowed_origins:
        return []
    filters = f"{TYPE}.extensions.filters.http"
    vary = {"append": header("vary", cors.VARY, "APPEND_IF_EXISTS_OR_ADD")}
    return [
        {
            "name": "envoy.filters.http.header_mutation",
            "typed_config": {
                "@type": f"{filters}.header_mutation.v3.HeaderMutation",
                "mutations": {"response_mutations": [vary]},
            },
        },
        {"name": _CORS, "typed_config": {"@type": f"{filters}.cors.v3.Cors"}},
    ]


def _cors_policy(settings: GatewaySettings) -> Json:
    if not settings.allowed_origins:
        return {}
    is_any = cors.ANY in settings.allowed_origins
    listed = [{"exact": origin} for origin in settings.allowed_origins]
    policy = {
        "@type": f"{TYPE}.extensions.filters.http.cors.v3.CorsPolicy",
        "allow_origin_string_match": [{"safe_regex": {"regex": ".+"}}] if is_any else listed,
        "allow_methods": cors.METHODS,
        "allow_headers": cors.HEADERS,
        "expose_headers": cors.EXPOSED,
        "max_age": str(cors.MAX_AGE_SECONDS),
        "allow_credentials": False,
    }
    return {"typed_per_filter_config": {_CORS: policy}}


def _gzip() -> Json:
    """Compress long responses that are not streamed, if the client accepts it."""
    compressor = f"{TYPE}.extensions.filters.http.compressor.v3.Compressor"
    return {
        "name": "envoy.filters.http.compressor",
        "typed_config": {
            "@type": compressor,
            "response_direction_config": {
                "common_config": {
                    "min_content_length": GZIP_FROM_BYTES,
                },
            },
            "compressor_library": {
                "name": "gzip",
                "typed_config": {"@type": f"{TYPE}.extensions.compression.gzip.compressor.v3.Gzip"},
            },
        },
    }


def _picker(settings: GatewaySettings) -> Json:
    patience = min(settings.max_timeout_seconds, _MOST_MESSAGE_SECONDS)
    return {
        "@type": f"{EXT_PROC_TYPE}.ExternalProcessor",
        "grpc_service": {"envoy_grpc": {"cluster_name": "picker"}},
        "processing_mode": {
            "request_header_mode": "SEND",
            "response_header_mode": "SKIP",
            "request_trailer_mode": "SKIP",
            "response_trailer_mode": "SKIP",
        },
        # The picker requests the body if it needs it.
        "allow_mode_override": True,
        "message_timeout": seconds(patience),
        "mutation_rules": {"allow_all_routing": True, "allow_envoy": True},
        "status_on_error": {"code": "ServiceUnavailable"},
    }


def _request_keys() -> Json:
    """Set an unguessable key and the peer's address on every request, replacing the client's.

    Adds a request id as well, unless there is one: Envoy's own errors contain it too.
    """
    return {
        "name": "envoy.http.early_header_mutation.header_mutation",
        "typed_config": {
            "@type": f"{TYPE}.extensions.http.early_header_mutation.header_mutation.v3"
            ".HeaderMutation",
            "mutations": [
                {"append": header(rpc.CALL_HEADER, "%UNIQUE_ID%")},
                {"append": header(status.REQUEST_ID, "%UNIQUE_ID%", "ADD_IF_ABSENT")},
                {
                    "append": header(
                        rpc.PEER_HEADER, "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%"
                    )
                },
                {"remove": DESTINATION_HEADER},
            ],
        },
    }


def _access_log() -> Json:
    """Send the picker an entry for each request that it has sent to a pod, as the request ends."""
    return {
        "name": "envoy.access_loggers.http_grpc",
        "filter": {"header_filter": {"header": {"name": rpc.CALL_HEADER, "present_match": True}}},
        "typed_config": {
            "@type": f"{TYPE}.extensions.access_loggers.grpc.v3.HttpGrpcAccessLogConfig",
            "common_config": {
                "log_name": "calls",
                "transport_api_version": "V3",
                "grpc_service": {"envoy_grpc": {"cluster_name": "picker"}},
                # Short, since the entry releases the request's slot; not zero, since a message with
                # many entries costs Python as much as one with a single entry.
                "buffer_flush_interval": seconds(_LOG_FLUSH_SECONDS),
            },
            "additional_request_headers_to_log": [rpc.CALL_HEADER],
            "additional_response_headers_to_log": list(status.RESULT_HEADERS),
            "additional_response_trailers_to_log": list(status.RESULT_HEADERS),
        },
    }


def _server_tls(files: TlsFiles) -> Json:
    """Return the TLS context; Envoy reloads the certificates when their files are replaced."""
    common: Json = {
        "tls_certificates": [
            {
                "certificate_chain": {"filename": files.cert_file},
                "private_key": {"filename": files.key_file},
                "watched_directory": {"path": str(Path(files.cert_file).parent)},
            }
        ]
    }
    if files.ca_file:
        common["validation_context"] = {
            "trusted_ca": {
                "filename": files.ca_file,
                "watched_directory": {"path": str(Path(files.ca_file).parent)},
            }
        }
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": f"{TYPE}.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
            "require_client_certificate": bool(files.ca_file),
            "common_tls_context": common | {"alpn_protocols": ["h2", "http/1.1"]},
        },
    }
