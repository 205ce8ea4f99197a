"""gRPC channels to pods: one each, shared by its load stream and all its requests.

A channel reads the certificate files when it is created; `renew` replaces all channels and lets the
streams on the old ones end.
"""

from __future__ import annotations

import asyncio
from typing import Any

import grpc

from autoglm.common import rpc
from autoglm.common.tls import TlsFiles
from autoglm.gateway.endpoints.endpoint import Endpoint
from autoglm.gateway.request.grpc_methods import METHODS


class Stubs:
    """The multicallables of one pod by method path; messages are bytes."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.channel = channel
        self.raw: dict[str, Any] = {}
        for method in METHODS:
            make = channel.unary_stream if method.streaming else channel.unary_unary
            self.raw[method.path] = (channel.stream_stream if method.bidi else make)(method.path)


class Channels:
    """Channels, created on first use. Streams on a replaced channel may last `grace` seconds."""

    def __init__(self, tls: TlsFiles | None = None, grace: float = 600.0) -> None:
        self._tls = tls or TlsFiles()
        self._grace = grace
        self._stubs: dict[str, Stubs] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def get(self, endpoint: Endpoint) -> Stubs:
        """Return the stubs of the endpoint's channel."""
        stubs = self._stubs.get(endpoint.url)
        if stubs is None:
            tls = self._tls if endpoint.tls else None
            channel = rpc.channel(endpoint.address, tls, secure=endpoint.tls)
            stubs = self._stubs[endpoint.url] = Stubs(channel)
        return stubs

    def discard(self, url: str) -> None:
        """Close an endpoint's channel once its streams have ended."""
        stubs = self._stubs.pop(url, None)
        if stubs is not None:
            task = asyncio.create_task(stubs.channel.close(self._grace))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    def renew(self) -> None:
        """Replace all channels, with the current certificate files."""
        for url in list(self._stubs):
            self.discard(url)

    async def close(self) -> None:
        """Close all channels and end their streams."""
        for task in self._closing:
            task.cancel()
        await asyncio.gather(*self._closing, return_exceptions=True)
        channels = [stubs.channel for stubs in self._stubs.values()]
        self._stubs.clear()
        await asyncio.gather(*(channel.close() for channel in channels))
