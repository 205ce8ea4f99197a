"""Builds a `GatewayRequest` from the ext_proc messages of another gateway's Envoy. No I/O.

An error becomes the request's `problem`, so that the pipeline observes the request and rejects it
only after authentication. Only the start of a body is read until the pipeline needs it; from then
on every piece counts in the memory budget.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable
from typing import Any, Literal

from msgspec.structs import replace

from autoglm.common import rpc
from autoglm.common.addresses import FORWARDED_FOR, split_address
from autoglm.common.errors import AutoGLMError, InvalidRequest, NoReadyEndpoint, Unimplemented
from autoglm.gateway.edges.rest_request import BINARY_HEADER, Bounds
from autoglm.gateway.envoy import ext_proc_pb2
from autoglm.gateway.envoy import request as envoy_request
from autoglm.gateway.envoy.config import (
    DESTINATION_NAMESPACE,
    SERVED_KEY,
    SUBSET_KEY,
    SUBSET_NAMESPACE,
)
from autoglm.gateway.envoy.exchange import Exchange
from autoglm.gateway.envoy.request import Seen, check_length
from autoglm.gateway.request.grpc_methods import BY_PATH
from autoglm.gateway.request.memory_budget import MemoryReservation
from autoglm.gateway.request.request import GatewayRequest, Wire
from autoglm.validation.http_apis import inference_post

MODE = ext_proc_pb2.ProcessingMode
_MODES = (MODE.FULL_DUPLEX_STREAMED, MODE.BUFFERED)
# The part of a body that is read before the pipeline needs it.
START_BYTES = 64 * 1024
# Space for the frame of a gRPC message.
_ROOM_BYTES = 16
# Headers of encodings that only the gateway's own servers read, with the remedy.
_UNREADABLE = {
    "content-encoding": "send the body uncompressed",
    BINARY_HEADER: "send tensors as JSON, or use gRPC",
}


def seen_of(headers: Any) -> Seen:
    """Read Envoy's `HttpHeaders`."""
    pairs = pairs_of(headers.headers)
    values = dict(pairs)
    fields = tuple(pair for pair in pairs if not pair[0].startswith(":"))
    return Seen(
        values.get(":method", ""),
        values.get(":path", ""),
        fields,
        not headers.end_of_stream,
        dict(fields),
    )


def pairs_of(headers: Any) -> tuple[tuple[str, str], ...]:
    """Return the pairs of Envoy's `HeaderMap`, whose values are bytes or, in older ones, text."""
    return tuple(
        (h.key, h.raw_value.decode("utf-8", "replace") or h.value) for h in headers.headers
    )


def wire_of(seen: Seen) -> Wire:
    """Return the wire of any request, unknown paths included."""
    kind = seen.values.get("content-type", "")
    return "grpc" if kind.partition(";")[0].partition("+")[0] == "application/grpc" else "http"


def mode_of(first: Any, bodies: Literal["request", "response"]) -> int:
    """Return how the proxy sends bodies; the protocol requires FULL_DUPLEX_STREAMED."""
    if not first.HasField("protocol_config"):
        # An older Envoy, which does not report it.
        return int(MODE.FULL_DUPLEX_STREAMED)
    return int(getattr(first.protocol_config, f"{bodies}_body_mode"))


def call_of(
    first: Any, seen: Seen, exchange: Exchange, bounds: Bounds, body: StreamedBody, now: float
) -> GatewayRequest:
    """Build the request from the first message of a stream; `body` is awaited when it is needed."""
    listed = subset(first)
    forwarded, _, last = seen.values.get(FORWARDED_FOR, "").rpartition(",")
    problem = _problem(first, seen, exchange.wire)
    if problem is None and listed is not None and not listed:
        problem = NoReadyEndpoint("the proxy in front allows no endpoint; try again later")
    if problem is None:
        request = envoy_request.begin(seen, exchange, bounds, body.whole, now)
    else:
        request = _stray(seen, exchange, bounds, now)
    return replace(
        request,
        problem=problem or request.problem,
        # The proxy in front, whose own address Envoy does not report, has appended the last one.
        peer=bounds.proxies.client_of(last.strip(), forwarded),
        allows=_allows(listed),
    )


def subset(first: Any) -> frozenset[str] | None:
    """Return the addresses to pick from: IP:PORT, or an IP for all its ports; None for any."""
    metadata = first.metadata_context.filter_metadata
    if SUBSET_NAMESPACE not in metadata or SUBSET_KEY not in metadata[SUBSET_NAMESPACE].fields:
        return None
    value = metadata[SUBSET_NAMESPACE].fields[SUBSET_KEY]
    # A list or one text, depending on the proxy.
    texts = [v.string_value for v in value.list_value.values] or [value.string_value]
    return frozenset(one.strip() for text in texts for one in text.split(",") if one.strip())


def served(message: Any) -> str:
    """Return the address that the proxy finally used; empty if it does not report it."""
    metadata = message.metadata_context.filter_metadata
    if DESTINATION_NAMESPACE not in metadata:
        return ""
    fields = metadata[DESTINATION_NAMESPACE].fields
    return str(fields[SERVED_KEY].string_value) if SERVED_KEY in fields else ""


def _allows(listed: frozenset[str] | None) -> Callable[[str], bool]:
    if listed is None:
        return lambda address: True
    return lambda address: address in listed or split_address(address)[0] in listed


def _problem(first: Any, seen: Seen, wire: Wire) -> AutoGLMError | None:
    if not _is_for_pods(seen, wire):
        return Unimplemented(
            f"{seen.method} {seen.path[:80]} is no request for a model; "
            "have the proxy send it to the gateway's own port"
        )
    for name, remedy in _UNREADABLE.items():
        if name in seen.values:
            return InvalidRequest(
                f"header {name} is not supported behind another gateway; {remedy}", field=name
            )
    if seen.has_body and (mode := mode_of(first, "request")) not in _MODES:
        name = MODE.BodySendMode.Name(MODE.BodySendMode.ValueType(mode))
        return Unimplemented(
            f"the proxy in front sends request bodies in mode {name}; have it use "
            "FULL_DUPLEX_STREAMED or BUFFERED"
        )
    return None


def _is_for_pods(seen: Seen, wire: Wire) -> bool:
    if wire == "http":
        path = seen.path.partition("?")[0]
        return seen.method == "POST" and inference_post(path) is not None
    # Each message of a `bidi` stream is routed by itself, which a proxy cannot do.
    return seen.path in BY_PATH and not BY_PATH[seen.path].bidi


def _stray(seen: Seen, exchange: Exchange, bounds: Bounds, now: float) -> GatewayRequest:
    """Build a request that is rejected; all of these have one route name."""
    metadata = rpc.rpc_from_metadata(seen.path, seen.pairs)
    return GatewayRequest(
        wire=exchange.wire,
        route="unknown",
        target=seen.path,
        payload=b"",
        request_id=metadata.request_id,
        started=now,
        deadline=now + bounds.default_timeout_seconds,
        trace_headers=metadata.trace_headers,
        credentials=metadata.credentials,
        exchange=exchange,
    )


class StreamedBody:
    """A body shared by two tasks: the edge adds pieces, the pipeline waits for the whole."""

    def __init__(self, limit: int, *, is_there: bool) -> None:
        loop = asyncio.get_running_loop()
        self._limit = limit
        # Grows in place and returns its bytes without a copy.
        self._pieces = io.BytesIO()
        self._size = self._held = 0
        self._hold: MemoryReservation | None = None
        self.is_whole = not is_there
        self.wanted: asyncio.Future[None] = loop.create_future()
        """Done once the pipeline waits for the whole body."""
        self._whole: asyncio.Future[None] = loop.create_future()

    @property
    def is_long(self) -> bool:
        """Return whether to read no more until the pipeline needs the body."""
        return self._size >= START_BYTES and not self.wanted.done()

    def add(self, piece: bytes, *, is_last: bool) -> None:
        """Add a piece of the body."""
        self._pieces.write(piece)
        self._size += len(piece)
        self.is_whole = self.is_whole or is_last
        self._update()

    def end(self) -> None:
        """Mark the body as complete."""
        self.is_whole = True
        self._update()

    async def whole(self, hold: MemoryReservation) -> bytes:
        """Wait for the whole body; call it once. Raises RequestTooLarge or QueueFull."""
        self._hold = hold
        self.wanted.set_result(None)
        self._update()
        await self._whole
        return self._pieces.getvalue()

    def take(self) -> bytes:
        """Remove and return the pieces so far, and release their memory."""
        taken, self._pieces = self._pieces.getvalue(), io.BytesIO()
        if self._hold is not None:
            self._hold.give(self._held)
            self._held = 0
        return taken

    def _update(self) -> None:
        if self._hold is None or self._whole.done():
            return
        try:
            check_length(self._size - _ROOM_BYTES, self._limit)
            more = self._size - self._held
            self._hold.take(more)
            self._held += more
        except AutoGLMError as error:
            self._whole.set_exception(error)
            return
        if self.is_whole:
            self._whole.set_result(None)
