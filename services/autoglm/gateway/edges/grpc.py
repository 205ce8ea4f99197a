"""The gateway's gRPC port: autoglm.v1, the Open Inference Protocol, health, reflection.

Builds requests from gRPC calls, passes them to the pipeline and writes the responses. Messages stay
bytes; the receive layer reads a message, which is parsed once for its `RequestInfo`, off the event
loop where it is large. Decides nothing about models, endpoints or retries. Built by `app`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import grpc
from msgspec.structs import replace

from autoglm.common import errors, status
from autoglm.common.addresses import FORWARDED_FOR, NO_PROXIES, TrustedProxies
from autoglm.common.process import DrainGate
from autoglm.common.rpc import PEER_HEADER, Rpc, current_rpc
from autoglm.gateway.edges.grpc_local import OPEN_PAGES, PAGES, Page
from autoglm.gateway.edges.inbound_memory import InboundMessages
from autoglm.gateway.edges.model_stream_infer import respond_to_stream
from autoglm.gateway.edges.slow_client import SLOW_READER_SECONDS, SlowReader
from autoglm.gateway.endpoints.snapshot import Snapshot, visible
from autoglm.gateway.pipeline import Identify, Respond
from autoglm.gateway.request.grpc_methods import INFERENCE, METHODS, OIP, Method
from autoglm.gateway.request.http_usage import reported_usage
from autoglm.gateway.request.memory_budget import MemoryReservation
from autoglm.gateway.request.request import (
    GatewayRequest,
    Handler,
    Receive,
    RequestRecord,
    Response,
    body_of,
    whole,
)
from autoglm.validation import bounds


@dataclass(frozen=True, slots=True)
class GrpcParts:
    """Dependencies of the edge.

    `local` handles the gateway's own pages, `open` those that need no credential. Without
    `identify` every caller is admitted.
    """

    pipeline: Handler
    local: Callable[[Respond], Handler]
    open: Callable[[Respond], Handler]
    snapshot: Callable[[], Snapshot]
    default_timeout_seconds: float
    max_timeout_seconds: float
    slow_reader_seconds: float = SLOW_READER_SECONDS
    identify: Identify | None = None
    content: bounds.Bounds = bounds.DEFAULT
    proxies: TrustedProxies = NO_PROXIES


class GrpcEdge:
    """Handlers of all methods."""

    def __init__(self, parts: GrpcParts, clock: Callable[[], float] = time.monotonic) -> None:
        self._parts = parts
        self._clock = clock
        self.gate = DrainGate()
        self.arrivals = InboundMessages(clock)
        self._aborting: set[asyncio.Task[None]] = set()

    def handlers(self) -> Sequence[grpc.GenericRpcHandler]:
        services: dict[str, dict[str, grpc.RpcMethodHandler[bytes, bytes]]] = {
            INFERENCE: {},
            OIP: {},
        }
        for method in METHODS:
            services[method.service][method.name] = self._handler(method)
        for (service, name), page in PAGES.items():
            wrap = self._parts.open if (service, name) in OPEN_PAGES else self._parts.local
            local = self._local(f"{service}/{name}", page, wrap)
            services[service][name] = grpc.stream_unary_rpc_method_handler(local)
        return [grpc.method_handlers_generic_handler(*service) for service in services.items()]

    def _handler(self, method: Method) -> grpc.RpcMethodHandler[bytes, bytes]:
        """Return a handler that takes a stream, so that the receive layer decides when to read."""
        if method.bidi:
            return grpc.stream_stream_rpc_method_handler(self._bidi(method))
        if method.streaming:
            return grpc.stream_stream_rpc_method_handler(self._stream(method))
        return grpc.stream_unary_rpc_method_handler(self._unary(method))

    def _unary(self, method: Method) -> Any:
        async def handle(requests: AsyncIterator[bytes], context: Any) -> bytes:
            request = await self._call(method, context, self._receiver(requests))
            record, body = RequestRecord(), b""

            async def deliver(response: Response) -> None:
                nonlocal body
                body = await body_of(response)
                await _finish(method, record, response, body, context)

            await self._parts.pipeline(request, record, deliver)
            return body

        return handle

    def _stream(self, method: Method) -> Any:
        async def handle(requests: AsyncIterator[bytes], context: Any) -> None:
            request = await self._call(method, context, self._receiver(requests))
            record = RequestRecord()

            async def deliver(response: Response) -> None:
                with self._slow_reader(context) as reader:
                    writer = _Writer(context, reader)
                    await response.forward(writer.write)
                await _finish(method, record, response, writer.last, context)

            await self._parts.pipeline(request, record, deliver)

        return handle

    def _bidi(self, method: Method) -> Any:
        async def handle(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
            number = 0

            async def request_of(payload: bytes) -> GatewayRequest:
                nonlocal number
                number += 1
                request = await self._call(method, context, _count)
                return replace(
                    request,
                    payload=payload,
                    request_id=f"{request.request_id}-{number}",
                    started=self._clock(),
                )

            messages = self._messages(await self._call(method, context, _count), requests)
            with self._slow_reader(context) as reader:
                async for chunk in respond_to_stream(messages, request_of, self._parts.pipeline):
                    reader.begin()
                    yield chunk
                    reader.end()

        return handle

    async def _messages(
        self, stream: GatewayRequest, requests: AsyncIterator[bytes]
    ) -> AsyncIterator[bytes]:
        """Yield the messages of a stream; those of unauthenticated callers are not read."""
        identify = self._parts.identify
        tenant = (await identify(stream) if identify else stream.principal).tenant
        messages = aiter(requests)
        while (payload := await self.arrivals.next(messages, tenant, may_idle=True)) is not None:
            yield payload

    def _receiver(self, requests: AsyncIterator[bytes]) -> Receive:
        """Return what reads the one message of a call, which gRPC delivers as a whole."""

        async def receive(
            request: GatewayRequest, reservation: MemoryReservation
        ) -> GatewayRequest:
            payload = await self.arrivals.next(aiter(requests), reservation.tenant)
            if payload is None:
                raise errors.InvalidRequest("the call has no request message; send one")
            reservation.take(len(payload))
            return replace(request, payload=payload)

        return receive

    def _slow_reader(self, context: Any) -> SlowReader:
        seconds = self._parts.slow_reader_seconds

        def abort() -> None:
            task = asyncio.create_task(_abort(context, seconds))
            self._aborting.add(task)
            task.add_done_callback(self._aborting.discard)

        return SlowReader(seconds, abort)

    def _local(self, route: str, page: Page, wrap: Callable[[Respond], Handler]) -> Any:
        def local_page(request: GatewayRequest) -> Response:
            seen = visible(self._parts.snapshot(), request.principal)
            return Response(whole(page(seen, request.payload)))

        handler = wrap(local_page)

        async def handle(requests: AsyncIterator[bytes], context: Any) -> bytes:
            await self.gate.passed()
            request = self._bare_call(route, context, self._receiver(requests))
            body = b""

            async def deliver(response: Response) -> None:
                nonlocal body
                body = await body_of(response)

            await handler(request, RequestRecord(), deliver)
            return body

        return handle

    async def _call(self, method: Method, context: Any, receive: Receive) -> GatewayRequest:
        await self.gate.passed()

        async def read(request: GatewayRequest, reservation: MemoryReservation) -> GatewayRequest:
            request = await receive(request, reservation)
            return replace(request, info=await method.info(request.payload, self._parts.content))

        return replace(self._bare_call(method.route, context, read), target=method.path)

    def _bare_call(self, route: str, context: Any, receive: Receive) -> GatewayRequest:
        rpc: Rpc = current_rpc.get()
        remaining: float | None = context.time_remaining()
        timeout = self._parts.default_timeout_seconds if remaining is None else remaining
        return GatewayRequest(
            wire="grpc",
            route=route,
            target="",
            payload=b"",
            receive=receive,
            request_id=rpc.request_id,
            started=rpc.started,
            deadline=self._clock() + min(timeout, self._parts.max_timeout_seconds),
            trace_headers=rpc.trace_headers,
            debug=rpc.debug,
            credentials=rpc.credentials,
            peer=_peer(context, self._parts.proxies),
            continues=rpc.continues,
        )


def _peer(context: Any, proxies: TrustedProxies) -> str:
    """Return the client's address."""
    peer = str(context.peer())
    is_local = peer.startswith("unix:")
    if not (is_local or proxies):
        return host_of_peer(peer)
    metadata = [(k, str(v)) for k, v in context.invocation_metadata()]
    forwarded = ",".join(v for k, v in metadata if k == FORWARDED_FOR)
    # Envoy's socket, where no other client can connect.
    peer = dict(metadata).get(PEER_HEADER, "") if is_local else host_of_peer(peer)
    return proxies.client_of(peer, forwarded)


def host_of_peer(peer: str) -> str:
    """Return the address of gRPC's name for a peer, such as `ipv6:%5B::1%5D:50051`."""
    kind, _, rest = peer.partition(":")
    if kind not in ("ipv4", "ipv6"):
        return peer
    return unquote(rest).rpartition(":")[0].strip("[]")


async def _count(request: GatewayRequest, reservation: MemoryReservation) -> GatewayRequest:
    """Reserve memory for a message that was read from its stream already."""
    reservation.take(len(request.payload))
    return request


async def _finish(
    method: Method, record: RequestRecord, response: Response, last: bytes, context: Any
) -> None:
    """Forward the pod's trailers, and read the usage where the limit layer does not."""
    trailers = await response.trailers()
    if not record.is_metered:
        record.usage = method.usage(last) or reported_usage(trailers)
    if trailers:
        context.set_trailing_metadata(
            ((status.REQUEST_ID, current_rpc.get().request_id), *trailers)
        )


class _Writer:
    """Writes the chunks of a stream; `last` is the latest one."""

    def __init__(self, context: Any, reader: SlowReader) -> None:
        self._context, self._reader = context, reader
        self.last = b""

    async def write(self, chunk: bytes) -> None:
        self.last = chunk
        self._reader.begin()
        await self._context.write(chunk)
        self._reader.end()


async def _abort(context: Any, seconds: float) -> None:
    """Send the error to a client that does not read; ends when it reads again or disconnects.

    The task of the call itself cannot: it is cancelled while it sends.
    """
    error = errors.Cancelled(f"the client read nothing for {seconds:g} s")
    error_status = status.to_grpc(error, current_rpc.get().request_id)
    with suppress(grpc.aio.AbortError, grpc.aio.UsageError):
        await context.abort(error_status.code, error_status.message, error_status.trailers)
