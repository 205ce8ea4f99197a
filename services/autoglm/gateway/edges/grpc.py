"""The gateway's gRPC port: autoglm.v1, the Open Inference Protocol, health, reflection.

Reads requests into calls, hands them to the layers, writes the replies. Messages stay bytes; a
request is read when the layers ask for it, and parsed once to learn what it asks for, off the event
loop where it is large. Decides nothing about models, endpoints or retries. Made by `app`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import grpc
from msgspec.structs import replace

from autoglm.common import errors, status
from autoglm.common.process.drain_gate import DrainGate
from autoglm.common.rpc import PEER_HEADER, Rpc, current_rpc
from autoglm.gateway.edges.grpc_local import OPEN_PAGES, PAGES, Page
from autoglm.gateway.edges.inbound_memory import InboundMessages
from autoglm.gateway.edges.model_stream_infer import answer_stream
from autoglm.gateway.edges.slow_client import SlowReader
from autoglm.gateway.endpoints.snapshot import Snapshot, visible
from autoglm.gateway.pipeline import Identify
from autoglm.gateway.request.grpc_methods import INFERENCE, METHODS, OIP, Method
from autoglm.gateway.request.memory_budget import MemoryReservation
from autoglm.gateway.request.openai_usage import reported_usage
from autoglm.gateway.request.request import (
    GatewayRequest,
    Handler,
    Receive,
    RequestRecord,
    Response,
)
from autoglm.validation import bounds


@dataclass(frozen=True, slots=True)
class GrpcParts:
    """What the edge stands on. `local` wraps the handler of an answer of the gateway's own, `open`
    that of one for everybody. Without `identify` everyone may ask."""

    relay: Handler
    local: Callable[[Handler], Handler]
    open: Callable[[Handler], Handler]
    snapshot: Callable[[], Snapshot]
    default_timeout_seconds: float
    max_timeout_seconds: float
    slow_reader_seconds: float = 60.0
    identify: Identify | None = None
    content: bounds.Bounds = bounds.DEFAULT


class GrpcEdge:
    """Handlers of all methods."""

    def __init__(self, parts: GrpcParts, clock: Callable[[], float] = time.monotonic) -> None:
        self._parts = parts
        self._clock = clock
        self.gate = DrainGate()
        self.arrivals = InboundMessages(clock)
        self._telling: set[asyncio.Task[None]] = set()

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
        """All take a stream of requests, so that the one request is read when we want it."""
        if method.bidi:
            return grpc.stream_stream_rpc_method_handler(self._bidi(method))
        if method.streaming:
            return grpc.stream_stream_rpc_method_handler(self._stream(method))
        return grpc.stream_unary_rpc_method_handler(self._unary(method))

    def _unary(self, method: Method) -> Any:
        async def answer(requests: AsyncIterator[bytes], context: Any) -> bytes:
            call, notes = (
                await self._call(method, context, self._receiver(requests)),
                RequestRecord(),
            )
            async with self._parts.relay(call, notes) as reply:
                body = await _only(reply)
                await _finish(method, notes, reply, body, context)
            return body

        return answer

    def _stream(self, method: Method) -> Any:
        async def answer(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
            call = await self._call(method, context, self._receiver(requests))
            notes, chunk = RequestRecord(), b""
            async with self._parts.relay(call, notes) as reply:
                with self._slow_reader(context) as reader:
                    async for chunk in reply.chunks:
                        reader.begin()
                        yield chunk
                        reader.end()
                await _finish(method, notes, reply, chunk, context)

        return answer

    def _bidi(self, method: Method) -> Any:
        async def answer(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
            number = 0

            async def call_of(payload: bytes) -> GatewayRequest:
                nonlocal number
                number += 1
                call = await self._call(method, context, _count)
                return replace(
                    call,
                    payload=payload,
                    request_id=f"{call.request_id}-{number}",
                    started=self._clock(),
                )

            messages = self._messages(await self._call(method, context, _count), requests)
            with self._slow_reader(context) as reader:
                async for chunk in answer_stream(messages, call_of, self._parts.relay):
                    reader.begin()
                    yield chunk
                    reader.end()

        return answer

    async def _messages(
        self, stream: GatewayRequest, requests: AsyncIterator[bytes]
    ) -> AsyncIterator[bytes]:
        """Of a stream of requests. A stranger's are not even read."""
        identify = self._parts.identify
        tenant = (await identify(stream) if identify else stream.principal).tenant
        messages = aiter(requests)
        while (payload := await self.arrivals.next(messages, tenant, may_idle=True)) is not None:
            yield payload

    def _receiver(self, requests: AsyncIterator[bytes]) -> Receive:
        """Of the one request of a call, which gRPC gives us when it is whole."""

        async def receive(call: GatewayRequest, hold: MemoryReservation) -> GatewayRequest:
            payload = await self.arrivals.next(aiter(requests), hold.tenant)
            if payload is None:
                raise errors.InvalidRequest("the call has no request message; send one")
            hold.take(len(payload))
            return replace(call, payload=payload)

        return receive

    def _slow_reader(self, context: Any) -> SlowReader:
        seconds = self._parts.slow_reader_seconds

        def tell() -> None:
            task = asyncio.create_task(_abort(context, seconds))
            self._telling.add(task)
            task.add_done_callback(self._telling.discard)

        return SlowReader(seconds, tell)

    def _local(self, route: str, page: Page, wrap: Callable[[Handler], Handler]) -> Any:
        @asynccontextmanager
        async def reply(call: GatewayRequest, notes: RequestRecord) -> AsyncIterator[Response]:
            seen = visible(self._parts.snapshot(), call.principal)
            yield Response(_one(page(seen, call.payload)))

        handler = wrap(reply)

        async def answer(requests: AsyncIterator[bytes], context: Any) -> bytes:
            await self.gate.passed()
            call = self._bare_call(route, context, self._receiver(requests))
            async with handler(call, RequestRecord()) as reply:
                return await _only(reply)

        return answer

    async def _call(self, method: Method, context: Any, receive: Receive) -> GatewayRequest:
        await self.gate.passed()

        async def read(call: GatewayRequest, hold: MemoryReservation) -> GatewayRequest:
            call = await receive(call, hold)
            return replace(call, info=await method.info(call.payload, self._parts.content))

        return replace(self._bare_call(method.route, context, read), target=method.path)

    def _bare_call(self, route: str, context: Any, receive: Receive) -> GatewayRequest:
        rpc: Rpc = current_rpc.get()
        asked: float | None = context.time_remaining()
        timeout = self._parts.default_timeout_seconds if asked is None else asked
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
            peer=_peer(context),
            continues=rpc.continues,
        )


def _peer(context: Any) -> str:
    peer = str(context.peer())
    if not peer.startswith("unix:"):
        return host_of_peer(peer)
    # Envoy's socket: nobody else can write there.
    return next((str(v) for k, v in context.invocation_metadata() if k == PEER_HEADER), "")


def host_of_peer(peer: str) -> str:
    """The address in gRPC's words for a peer, such as `ipv6:%5B::1%5D:50051`."""
    kind, _, rest = peer.partition(":")
    if kind not in ("ipv4", "ipv6"):
        return peer
    return unquote(rest).rpartition(":")[0].strip("[]")


async def _count(call: GatewayRequest, hold: MemoryReservation) -> GatewayRequest:
    """The request was read from its stream already."""
    hold.take(len(call.payload))
    return call


async def _finish(
    method: Method, notes: RequestRecord, reply: Response, last: bytes, context: Any
) -> None:
    """Pass on the pod's trailers, and read the usage where the limit layer does not."""
    trailers = await reply.trailers()
    if not notes.is_metered:
        notes.usage = method.usage(last) or reported_usage(trailers)
    if trailers:
        context.set_trailing_metadata(
            ((status.REQUEST_ID, current_rpc.get().request_id), *trailers)
        )


async def _only(reply: Response) -> bytes:
    return b"".join([chunk async for chunk in reply.chunks])


async def _one(payload: bytes) -> AsyncIterator[bytes]:
    yield payload


async def _abort(context: Any, seconds: float) -> None:
    """Tells a client that does not read; done when it reads again or has gone.

    The task of the call itself cannot: it is cancelled while it sends.
    """
    error = errors.Cancelled(f"the caller read nothing for {seconds:g} s")
    answer = status.to_grpc(error, current_rpc.get().request_id)
    with suppress(grpc.aio.AbortError, grpc.aio.UsageError):
        await context.abort(answer.code, answer.message, answer.trailers)
