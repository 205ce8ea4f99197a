"""Makes gRPC channels and servers, with the one interceptor that maps exceptions to gRPC errors.

Every server is made by `server`, every channel by `channel` or `sync_channel`: keep-alive, message
bounds and error mapping are the same everywhere.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import re
import secrets
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import grpc

from autoglm.common import errors, status
from autoglm.common.addresses import cannot_listen, split_address
from autoglm.common.tls import TlsFiles, grpc_channel_credentials, grpc_server_credentials

MAX_MESSAGE_BYTES = 64 * 1024 * 1024
_KEEPALIVE = (
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.max_pings_without_data", 0),
)
_CHANNEL_OPTIONS = (
    *_KEEPALIVE,
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    # In spite of its name, how long an attempt to connect may take at least. It would end with the
    # backoff otherwise, which a handshake over TLS, far away or on a busy machine exceeds.
    ("grpc.min_reconnect_backoff_ms", 5_000),
    ("grpc.max_reconnect_backoff_ms", 5_000),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    # Retries are ours, in one place, with a budget.
    ("grpc.enable_retries", 0),
)
SERVER_OPTIONS = (
    *_KEEPALIVE,
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    # No bound: over one, grpcio closes a flooding connection only after tens of seconds.
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.so_reuseport", 0),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
)
TRACE_HEADERS = ("traceparent", "tracestate")
AUTHORIZATION = "authorization"
API_KEY = "x-api-key"
# Every presented credential, as (header's name in lower case, value), in order. Secret.
Credentials = tuple[tuple[str, str], ...]
# The longest request id that is passed on; only visible ASCII characters are.
_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")
_log = logging.getLogger("autoglm.rpc")


@dataclass(frozen=True, slots=True)
class Rpc:
    """The metadata of the call being served. `started` is on the monotonic clock."""

    method: str = ""
    request_id: str = ""
    started: float = 0.0
    trace_headers: dict[str, str] = field(default_factory=dict)
    debug: str = ""
    """The debug output that the caller requests; for gateways."""
    credentials: Credentials = field(default=(), repr=False)
    prefix_salt: str = ""
    """The salt of the block names of this call's prompt; from gateways to pods."""
    cache_salt: str = field(default="", repr=False)
    """The salt that separates the tenant's KV-cache blocks from those of others; for pods."""
    continues: str = field(default="", repr=False)
    """The key of the call that this one continues; from Envoy to its gateway."""


DEBUG_HEADER = "x-autoglm-debug"
# Set by gateways: 16 hexadecimal digits.
PREFIX_SALT = "x-autoglm-prefix-salt"
# Set by gateways for pods, per tenant; never taken from clients.
CACHE_SALT = "x-autoglm-cache-salt"
# Set by gateways for pods: the id of the response that the pod is about to make.
RESPONSE_ID = "x-autoglm-response-id"
# From Envoy to its gateway: a call's key, and its peer's address.
CALL_HEADER = "x-autoglm-call"
PEER_HEADER = "x-autoglm-peer"
# Headers of this installation's own hops, and those in which proxies report the client's address.
_INTERNAL = ("x-autoglm-", "autoglm-", "x-envoy-", "x-gateway-", "x-forwarded-")
_CLIENT_ADDRESS = frozenset(("forwarded", "x-real-ip", "true-client-ip", "cf-connecting-ip"))
# Streams of these are open to every client and have no end of their own.
_OPEN_STREAM_METHODS = frozenset(
    (
        "/grpc.health.v1.Health/Watch",
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    )
)
_OPEN_STREAMS = 64
# Set by the interceptor for every handler.
current_rpc: ContextVar[Rpc] = ContextVar("current_rpc")


def new_request_id() -> str:
    return secrets.token_hex(16)


def is_internal_header(name: str) -> bool:
    """Return whether a header, in lower case, must not reach third-party servers."""
    return name.startswith(_INTERNAL) or name in _CLIENT_ADDRESS


def request_id_of(given: str) -> str:
    """Return the caller's id, or a new one if it is absent, too long or not visible ASCII."""
    return given if _REQUEST_ID.fullmatch(given) else new_request_id()


def credentials_of(headers: Iterable[tuple[str, str | bytes]]) -> Credentials:
    """Return every value of every header that carries a credential; names in lower case."""
    return tuple(
        [
            (name, value if isinstance(value, str) else value.decode("latin-1"))
            for name, value in headers
            if name in (AUTHORIZATION, API_KEY)
        ]
    )


def rpc_from_metadata(method: str, metadata: Sequence[tuple[str, str | bytes]]) -> Rpc:
    headers = {k: v for k, v in metadata if isinstance(v, str)}
    return Rpc(
        method,
        request_id_of(headers.get(status.REQUEST_ID, "")),
        time.monotonic(),
        {k: headers[k] for k in TRACE_HEADERS if k in headers},
        headers.get(DEBUG_HEADER, ""),
        credentials_of(metadata) if AUTHORIZATION in headers or API_KEY in headers else (),
        headers.get(PREFIX_SALT, ""),
        headers.get(CACHE_SALT, ""),
        headers.get(CALL_HEADER, ""),
    )


def channel(address: str, tls: TlsFiles | None = None, *, secure: bool = False) -> grpc.aio.Channel:
    """Open an asyncio channel; `secure` without files trusts the system's authorities."""
    if tls or secure:
        credentials = grpc_channel_credentials(tls or TlsFiles())
        return grpc.aio.secure_channel(address, credentials, _CHANNEL_OPTIONS)
    return grpc.aio.insecure_channel(address, _CHANNEL_OPTIONS)


def sync_channel(address: str, tls: TlsFiles | None = None) -> grpc.Channel:
    """Open a channel for code without an event loop, such as the blocking client."""
    if tls:
        return grpc.secure_channel(address, grpc_channel_credentials(tls), _CHANNEL_OPTIONS)
    return grpc.insecure_channel(address, _CHANNEL_OPTIONS)


def server(
    interceptors: Sequence[grpc.aio.ServerInterceptor] = (),
    max_message_bytes: int = MAX_MESSAGE_BYTES,
    max_connections: int | None = None,
    max_calls: int | None = None,
    in_one_piece: bool = False,
    idle_seconds: float | None = None,
) -> grpc.aio.Server:
    """Make a server that closes connections over the maximum, and rejects calls over it with
    RESOURCE_EXHAUSTED. Streams that need no credential have a bound of their own below it. With
    `idle_seconds` a connection without a call is closed after that time, whatever it pings.

    `in_one_piece` is for pods: see `ErrorInterceptor`.
    """
    options = [*SERVER_OPTIONS, ("grpc.max_receive_message_length", max_message_bytes)]
    if max_connections is not None:
        options.append(("grpc.max_allowed_incoming_connections", max_connections))
    if idle_seconds is not None:
        options.append(("grpc.max_connection_idle_ms", round(1000 * idle_seconds)))
    open_streams = min(_OPEN_STREAMS, max_calls // 4) if max_calls else _OPEN_STREAMS
    return grpc.aio.server(
        interceptors=[ErrorInterceptor(in_one_piece, open_streams), *interceptors],
        options=options,
        maximum_concurrent_rpcs=max_calls,
    )


def bind(
    to: grpc.aio.Server, address: str, tls: TlsFiles | grpc.ServerCredentials | None = None
) -> int:
    """Bind the address and return the port. Raises OSError when it is not available."""
    try:
        check_free(address)
        if tls:
            credentials = grpc_server_credentials(tls) if isinstance(tls, TlsFiles) else tls
            return to.add_secure_port(address, credentials)
        return to.add_insecure_port(address)
    except (OSError, RuntimeError) as error:
        known = error if isinstance(error, OSError) else OSError(str(error))
        raise OSError(cannot_listen(address, known)) from error


def check_free(address: str) -> None:
    """Raise OSError with the kernel's reason if the address is taken; gRPC does not report it."""
    host, port = split_address(address)
    infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, kind, protocol, _, socket_address = infos[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(socket_address)


Behaviour = Callable[[Any, Any], Any]
Wrapper = Callable[[Behaviour, Any], Behaviour]


class ErrorInterceptor(grpc.aio.ServerInterceptor):
    """Outermost: names the request, sends our errors with details, hides everything else.

    Metadata is sent with the first message. An error before that is a single frame (gRPC's
    Trailers-Only), by which proxies know that they may retry on another endpoint. `in_one_piece`
    sends unary responses at once, too, with their request id in the trailers: when the server dies
    a proxy has either the whole response or nothing. By default gRPC sends metadata before the
    message.
    """

    def __init__(self, in_one_piece: bool = False, max_open_streams: int = _OPEN_STREAMS) -> None:
        self._in_one_piece = in_one_piece
        self._max_open_streams = max_open_streams
        self._open_streams = 0

    async def intercept_service(
        self,
        continuation: Callable[[Any], Awaitable[Any]],
        handler_call_details: Any,
    ) -> Any:
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        if handler.response_streaming:
            name = "stream_stream" if handler.request_streaming else "unary_stream"
            behaviour = getattr(handler, name)
            # A coroutine writes to the context itself, as grpc_health's Watch does.
            wrap: Wrapper = _writer if inspect.iscoroutinefunction(behaviour) else _stream
            if handler_call_details.method in _OPEN_STREAM_METHODS:
                behaviour = self._bounded(behaviour)
        else:
            name = "stream_unary" if handler.request_streaming else "unary_unary"
            behaviour = getattr(handler, name)
            wrap = partial(_unary, in_one_piece=self._in_one_piece)
        make = getattr(grpc, f"{name}_rpc_method_handler")
        wrapped = wrap(behaviour, handler_call_details)
        return make(wrapped, handler.request_deserializer, handler.response_serializer)

    def _bounded(self, behaviour: Behaviour) -> Behaviour:
        """Count the streams of methods that need no credential, and reject those over the bound."""

        async def write(request: Any, context: Any) -> Any:
            with self._open_stream():
                return await behaviour(request, context)

        async def stream(request: Any, context: Any) -> AsyncIterator[Any]:
            with self._open_stream():
                async with aclosing(behaviour(request, context)) as messages:
                    async for message in messages:
                        yield message

        return write if inspect.iscoroutinefunction(behaviour) else stream

    @contextmanager
    def _open_stream(self) -> Iterator[None]:
        if self._open_streams >= self._max_open_streams:
            raise errors.QueueFull(
                f"{self._open_streams} streams of health and reflection are open, the limit; "
                "close one, or poll Health/Check",
                retry_after=1.0,
            )
        self._open_streams += 1
        try:
            yield
        finally:
            self._open_streams -= 1


def _begin(details: Any) -> Rpc:
    rpc = rpc_from_metadata(details.method, details.invocation_metadata)
    current_rpc.set(rpc)
    return rpc


def _unary(behaviour: Behaviour, details: Any, *, in_one_piece: bool) -> Behaviour:
    async def call(request: Any, context: Any) -> Any:
        rpc = _begin(details)
        own = (status.REQUEST_ID, rpc.request_id)
        try:
            response = await behaviour(request, context)
            if in_one_piece:
                context.set_trailing_metadata((own, *(context.trailing_metadata() or ())))
            else:
                await context.send_initial_metadata((own,))
            return response
        except Exception as error:
            await _abort(context, error, rpc)

    return call


def _writer(behaviour: Behaviour, details: Any) -> Behaviour:
    async def call(request: Any, context: Any) -> Any:
        rpc = _begin(details)
        try:
            await context.send_initial_metadata(((status.REQUEST_ID, rpc.request_id),))
            return await behaviour(request, context)
        except Exception as error:
            await _abort(context, error, rpc)

    return call


def _stream(behaviour: Behaviour, details: Any) -> Behaviour:
    async def call(request: Any, context: Any) -> AsyncIterator[Any]:
        rpc = _begin(details)
        try:
            is_first = True
            async with aclosing(behaviour(request, context)) as messages:
                async for message in messages:
                    if is_first:
                        is_first = False
                        await context.send_initial_metadata(((status.REQUEST_ID, rpc.request_id),))
                    yield message
        except Exception as error:
            await _abort(context, error, rpc)

    return call


async def _abort(context: Any, error: Exception, rpc: Rpc) -> None:
    """End the call with the error's status; errors that are not ours are logged and hidden."""
    if isinstance(error, grpc.aio.AbortError):
        raise error
    if isinstance(error, grpc.aio.AioRpcError):
        error = status.from_grpc(error)
    elif isinstance(error, asyncio.TimeoutError):
        error = errors.DeadlineExceeded("the deadline passed")
    elif not isinstance(error, errors.AutoGLMError):
        _log.error(
            "unexpected error in %s",
            rpc.method,
            exc_info=error,
            extra={"fields": {"request_id": rpc.request_id}},
        )
        error = errors.Internal(str(error))
    errors.forget_frames(error)
    response = status.to_grpc(error, rpc.request_id)
    await context.abort(response.code, response.message, response.trailers)
