"""Reads what another gateway's Envoy says of a request into a `GatewayRequest`.

Called by the endpoint picker's edge. What is wrong becomes the call's `problem`, so that it is seen
by the layers, and refused only after it is known who asks.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from msgspec.structs import replace

from autoglm.common import rpc
from autoglm.common.addresses import split_address
from autoglm.common.errors import AutoGLMError, InvalidRequest, NoReadyEndpoint, Unimplemented
from autoglm.gateway.edges.rest_request import BINARY_HEADER, Bounds
from autoglm.gateway.envoy import ext_proc_pb2, request
from autoglm.gateway.envoy.config.names import (
    DESTINATION_NAMESPACE,
    SERVED_KEY,
    SUBSET_KEY,
    SUBSET_NAMESPACE,
)
from autoglm.gateway.envoy.endpoint_picker.streamed_body import StreamedBody
from autoglm.gateway.envoy.exchange import Exchange
from autoglm.gateway.envoy.request import Seen
from autoglm.gateway.request.grpc_methods import BY_PATH
from autoglm.gateway.request.request import GatewayRequest, Wire
from autoglm.validation.http_apis import inference_post
from autoglm.validation.routing_hint import HINT_METADATA

MODE = ext_proc_pb2.ProcessingMode
_MODES = (MODE.FULL_DUPLEX_STREAMED, MODE.BUFFERED)
_FORWARDED = "x-forwarded-for"
# What only a gateway's own servers make readable, and its way out.
_UNREADABLE = {
    "content-encoding": "send the body as it is",
    BINARY_HEADER: "send tensors as JSON, or ask over gRPC",
}


def wire_of(seen: Seen) -> Wire:
    """Also of requests that nobody here knows."""
    kind = seen.values.get("content-type", "")
    return "grpc" if kind.partition(";")[0].partition("+")[0] == "application/grpc" else "http"


def body_mode(first: Any) -> int:
    """How the proxy sends request bodies; the protocol wants FULL_DUPLEX_STREAMED."""
    return _mode(first, "request_body_mode")


def answer_mode(first: Any) -> int:
    return _mode(first, "response_body_mode")


def _mode(first: Any, name: str) -> int:
    if not first.HasField("protocol_config"):
        # Of an Envoy that does not tell yet.
        return int(MODE.FULL_DUPLEX_STREAMED)
    return int(getattr(first.protocol_config, name))


def call_of(
    first: Any, seen: Seen, exchange: Exchange, bounds: Bounds, body: StreamedBody, now: float
) -> GatewayRequest:
    """Of the first message of a stream; `body` is waited for when a layer wants it."""
    listed = subset(first)
    problem = _problem(first, seen, exchange.wire)
    if problem is None and listed is not None and not listed:
        problem = NoReadyEndpoint("the proxy in front allows no endpoint; try again later")
    if problem is None:
        call = request.begin(seen, exchange, bounds, _none, now)
    else:
        call = _stray(seen, exchange, bounds, now)
    hint = seen.values.get(HINT_METADATA, "")
    return replace(
        call,
        problem=problem or call.problem,
        receive=partial(request.receive, body.whole, bounds, hint),
        peer=seen.values.get(_FORWARDED, "").rpartition(",")[2].strip(),
        allows=_allows(listed),
    )


def subset(first: Any) -> frozenset[str] | None:
    """The addresses to pick from: IP:PORT, or an IP with all its ports; None for all there are."""
    said = first.metadata_context.filter_metadata
    if SUBSET_NAMESPACE not in said or SUBSET_KEY not in said[SUBSET_NAMESPACE].fields:
        return None
    value = said[SUBSET_NAMESPACE].fields[SUBSET_KEY]
    # A list, or one text, depending on what in the proxy has made it.
    texts = [v.string_value for v in value.list_value.values] or [value.string_value]
    return frozenset(one.strip() for text in texts for one in text.split(",") if one.strip())


def served(message: Any) -> str:
    """Which address a proxy has gone to in the end; empty where it does not tell."""
    said = message.metadata_context.filter_metadata
    if DESTINATION_NAMESPACE not in said or SERVED_KEY not in said[DESTINATION_NAMESPACE].fields:
        return ""
    return str(said[DESTINATION_NAMESPACE].fields[SERVED_KEY].string_value)


def _allows(listed: frozenset[str] | None) -> Callable[[str], bool]:
    if listed is None:
        return _every
    return lambda address: address in listed or split_address(address)[0] in listed


def _every(_: str) -> bool:
    return True


def _problem(first: Any, seen: Seen, wire: Wire) -> AutoGLMError | None:
    if not _is_for_pods(seen, wire):
        return Unimplemented(
            f"{seen.values.get(':method', '')} {seen.path[:80]} is no request for a model; "
            "have the proxy send it to the gateway's own port"
        )
    for name, remedy in _UNREADABLE.items():
        if name in seen.values:
            return InvalidRequest(
                f"header {name} is not understood behind another gateway; {remedy}", field=name
            )
    if seen.has_body and (mode := body_mode(first)) not in _MODES:
        name = MODE.BodySendMode.Name(MODE.BodySendMode.ValueType(mode))
        return Unimplemented(
            f"the proxy in front sends request bodies in mode {name}; have it use "
            "FULL_DUPLEX_STREAMED or BUFFERED"
        )
    return None


def _is_for_pods(seen: Seen, wire: Wire) -> bool:
    if wire == "http":
        path = seen.path.partition("?")[0]
        return seen.values.get(":method") == "POST" and inference_post(path) is not None
    # Each request on a stream of requests is routed by itself, which a proxy cannot do.
    return seen.path in BY_PATH and not BY_PATH[seen.path].bidi


def _stray(seen: Seen, exchange: Exchange, bounds: Bounds, now: float) -> GatewayRequest:
    """A request that is refused; its route has one name, whatever it asks for."""
    told = rpc.rpc_from_metadata(seen.path, seen.pairs)
    return GatewayRequest(
        wire=exchange.wire,
        route="unknown",
        target=seen.path,
        payload=b"",
        request_id=told.request_id,
        started=now,
        deadline=now + bounds.default_timeout_seconds,
        trace_headers=told.trace_headers,
        credentials=told.credentials,
        exchange=exchange,
    )


async def _none() -> bytes:
    return b""
