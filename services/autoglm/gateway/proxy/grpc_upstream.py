"""Sends gRPC requests to pods and forwards the responses as bytes: the gRPC `Upstream`.

Maps a failed gRPC call to `RetryElsewhere` before the first chunk and to `StreamBroken` after it.
Never parses a message, picks an endpoint or retries.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from functools import partial
from typing import Any

import grpc

from autoglm.common import errors, status
from autoglm.gateway.endpoints.channels import Channels
from autoglm.gateway.endpoints.endpoint import EndpointView
from autoglm.gateway.proxy.upstream import Fallbacks, RetryElsewhere, no_fallbacks
from autoglm.gateway.request.grpc_methods import BY_PATH
from autoglm.gateway.request.request import GatewayRequest, Response, Trailers, Write

# Trailers of a pod that are meant for the client.
TRAILER_PREFIX = "autoglm-"


class GrpcUpstream:
    """An `Upstream` over the pods' channels."""

    def __init__(self, channels: Channels) -> None:
        self._channels = channels

    async def __call__(
        self,
        request: GatewayRequest,
        endpoint: EndpointView,
        headers: Mapping[str, str],
        timeout: float,
        fallbacks: Fallbacks = no_fallbacks,
    ) -> Response:
        method = BY_PATH[request.target]
        start = self._channels.get(endpoint.endpoint).raw[request.target]
        metadata = (*request.headers.items(), *headers.items())
        payload = _one_message(request.payload) if method.bidi else request.payload
        rpc = start(payload, timeout=timeout, metadata=metadata)
        messages: AsyncIterator[bytes] | None = aiter(rpc) if method.streaming else None
        try:
            first = await (anext(messages, None) if messages is not None else rpc)
        except grpc.aio.AioRpcError as error:
            raise failure(error, endpoint.url) from error
        except BaseException:
            rpc.cancel()
            raise
        return Response(
            partial(_forward, first, messages, endpoint.url),
            trailers=partial(_trailers, rpc),
            close=rpc.cancel,
        )


async def _one_message(payload: bytes) -> AsyncIterator[bytes]:
    yield payload


def failure(error: grpc.aio.AioRpcError, url: str) -> Exception:
    """Return the error for a gRPC call that failed before its first chunk."""
    ours = status.from_grpc(error)
    if error.code() is grpc.StatusCode.CANCELLED and not _is_explained(error):
        # Cancelled neither by us nor by the pod's servicer: its server stopped before that.
        return RetryElsewhere(errors.NoReadyEndpoint(f"{url} stopped; try again"))
    if error.code() is not grpc.StatusCode.UNAVAILABLE:
        return ours
    if isinstance(ours, errors.ShuttingDown):
        return RetryElsewhere(ours, draining=True)
    # An error with the pod's details was sent over a connection that works.
    gone = isinstance(ours, errors.EngineDead) or not _is_explained(error)
    unreachable = errors.NoReadyEndpoint(f"{url} did not respond ({ours.message}); try again later")
    return RetryElsewhere(unreachable, gone=gone, refused=not gone)


def broken(error: grpc.aio.AioRpcError, url: str) -> errors.AutoGLMError:
    """Return the error for a gRPC call that failed after its first chunk."""
    ours = status.from_grpc(error)
    if error.code() is not grpc.StatusCode.UNAVAILABLE:
        return ours
    return errors.StreamBroken(
        f"{url} disconnected during the response ({ours.message}); "
        "the response is incomplete, send the request again"
    )


def _is_explained(error: grpc.aio.AioRpcError) -> bool:
    return any(name == status.DETAILS_TRAILER for name, _ in error.trailing_metadata() or ())


async def _forward(
    first: bytes | None, messages: AsyncIterator[bytes] | None, url: str, write: Write
) -> None:
    """Pass on the first message, if there is one, then those that follow it in a stream."""
    if first is not None and (waiting := write(first)) is not None:
        await waiting
    if messages is None:
        return
    try:
        async for message in messages:
            if (waiting := write(message)) is not None:
                await waiting
    except grpc.aio.AioRpcError as error:
        raise broken(error, url) from error


async def _trailers(rpc: Any) -> Trailers:
    trailers = await rpc.trailing_metadata() or ()
    return tuple((k, v) for k, v in trailers if k.startswith(TRAILER_PREFIX))
