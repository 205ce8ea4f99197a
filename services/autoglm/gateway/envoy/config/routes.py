"""Envoy's routes: to pods by the picker, or to the gateway's own servers. Pure.

Proxied methods and paths are routed to pods; all others, and requests that need a feature that only
the gateway's own servers have, to those.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from autoglm.common import errors, rpc, status
from autoglm.gateway.edges.rest_request import BINARY_HEADER
from autoglm.gateway.envoy.config.names import PLANE_HEADER, PLANE_WITHOUT
from autoglm.gateway.envoy.config.parts import (
    EXT_PROC,
    EXT_PROC_TYPE,
    Json,
    header,
    seconds,
)
from autoglm.gateway.proxy.http_upstream import UPSTREAM_CORS_HEADERS
from autoglm.gateway.request.grpc_methods import METHODS
from autoglm.gateway.request.request import Wire
from autoglm.gateway.settings import GatewaySettings
from autoglm.validation import http_errors
from autoglm.validation.http_apis import INFERENCE_POSTS, HttpApi

# Requests with these headers need the gateway's own servers: to decompress, to explain a routing
# decision, to find the JSON before binary tensors.
_OWN_HEADERS = ("content-encoding", "grpc-encoding", rpc.DEBUG_HEADER, BINARY_HEADER)
_GRPC_STREAMS = frozenset(method.path for method in METHODS if method.streaming)
# Space for the frame of a message, so that the longest message fits.
_ROOM_BYTES = 1024
_NO_RETRY = f"%CEL(response.code == {errors.Unimplemented.http_status} ? 'false' : '')%"
# "cancelled" is the status of a server that stops before it has started a call.
_RETRY_ON = "reset,connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes"


def routes(wire: Wire, settings: GatewaySettings) -> list[Json]:
    """Return the routes of the listener, in the order of matching."""
    own = [_to_own(wire, {"prefix": "/"}, header) for header in _OWN_HEADERS]
    direct = [_to_pods(wire, match, settings) for match in _direct_matches(wire)]
    return [*own, *direct, _to_own(wire, {"prefix": "/"})]


def _direct_matches(wire: Wire) -> Sequence[Json]:
    """Match all methods but `bidi`, each message of which is a request that is routed by itself."""
    if wire == "grpc":
        return [{"path": method.path} for method in METHODS if not method.bidi]
    is_post = {"headers": [{"name": ":method", "string_match": {"exact": "POST"}}]}
    return [_path_match(api) | is_post for api in INFERENCE_POSTS]


def _path_match(api: HttpApi) -> Json:
    return {"safe_regex": {"regex": api.regex}} if api.has_model else {"path": api.path}


def _to_own(wire: Wire, match: Json, header: str = "") -> Json:
    has_header = {"headers": [{"name": header, "present_match": True}]} if header else {}
    return {
        "match": match | has_header,
        "route": {"cluster": f"own-{wire}", "timeout": "0s"},
        "request_headers_to_remove": [rpc.CALL_HEADER],
        "typed_per_filter_config": {
            EXT_PROC: {"@type": f"{EXT_PROC_TYPE}.ExtProcPerRoute", "disabled": True},
        },
    }


def _to_pods(wire: Wire, match: Json, settings: GatewaySettings) -> Json:
    is_stream = match.get("path") in _GRPC_STREAMS
    return {
        "match": match,
        "route": {
            "cluster": f"call-{wire}",
            # The picker sets the timeout of each request.
            "timeout": "0s",
            **({"max_stream_duration": _deadline(settings)} if wire == "grpc" else {}),
            **({"idle_timeout": _longest_silence(settings)} if is_stream else {}),
            "retry_policy": {
                "retry_on": _RETRY_ON,
                "retriable_status_codes": [503],
                "num_retries": 1,
                "retry_back_off": {"base_interval": "0.001s", "max_interval": "0.002s"},
            },
        },
        # Kept for the retry, and for the picker if it requests the body.
        "request_body_buffer_limit": settings.max_body_bytes + _ROOM_BYTES,
        "response_headers_to_remove": list(UPSTREAM_CORS_HEADERS),
        "response_headers_to_add": [
            *_response_headers(wire, match.get("path", "")),
            header(PLANE_HEADER, PLANE_WITHOUT),
        ],
    }


def _response_headers(wire: Wire, path: str) -> Iterator[Json]:
    own = http_errors.request_id_headers(f"%REQ({status.REQUEST_ID})%", path)
    yield from (header(name, value) for name, value in own.items())
    if wire == "http":
        # On all responses, since Envoy does not know which are streams; responses to POST are not
        # cached in any case.
        for name, value in http_errors.STREAM_HEADERS.items():
            yield header(name, value, "ADD_IF_ABSENT")
        # OpenAI servers other than pods do not send it. Envoy omits a header that is empty.
        yield header(http_errors.SHOULD_RETRY, _NO_RETRY, "ADD_IF_ABSENT")


def _deadline(settings: GatewaySettings) -> Json:
    """Return the client's deadline within bounds; only this ends as DEADLINE_EXCEEDED."""
    return {
        "max_stream_duration": seconds(settings.default_timeout_seconds),
        "grpc_timeout_header_max": seconds(settings.max_timeout_seconds),
    }


def _longest_silence(settings: GatewaySettings) -> str:
    """Return the idle timeout of a stream, its wait in the queue included; ends slow readers."""
    first = settings.first_token_timeout_seconds
    silence = max(first, settings.chunk_timeout_seconds, settings.slow_reader_seconds)
    return seconds(settings.queue_timeout_seconds + silence if first else 0.0)
