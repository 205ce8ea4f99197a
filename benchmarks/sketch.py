"""A flat relay in one file: what one Python process can pass on, as a yardstick for the gateway.

    python -m benchmarks.sketch PORT UPSTREAM_HOST:PORT API_KEYS_FILE LOG

It authenticates by digest, decodes and validates the body, estimates tokens, counts requests in
flight, picks of eight by the power of two choices, keeps the bytes of each response as recovery
needs them, sets a timer for stalls, and records four metrics, one trace in a hundred and a log line
for each request. No limits, backpressure, retries, TLS or HTTP/1.0: to measure with, not to use.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import sys
import time
from collections import deque
from pathlib import Path
from typing import cast

import httptools
import msgspec
import uvloop
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from prometheus_client import Counter, Gauge, Histogram

_ENDPOINTS = 8
_STALL_SECONDS = 60.0
_REJECTED = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n"


class Body(msgspec.Struct):
    model: str = ""
    messages: list[dict[str, str]] = []
    prompt: str = ""
    stream: bool = False
    max_tokens: int | None = None
    temperature: float | None = None

    def is_valid(self) -> bool:
        tokens, heat = self.max_tokens, self.temperature
        in_range = (tokens is None or tokens >= 1) and (heat is None or 0 <= heat <= 2)
        return in_range and bool(self.model and (self.messages or self.prompt))

    def tokens(self) -> int:
        text = len(self.prompt) + sum(len(message["content"]) for message in self.messages)
        return text // 3 + (self.max_tokens or 256)


class Relay:
    """What all connections share."""

    def __init__(self, upstream: str, keys: str, log: str) -> None:
        self.host, _, self.port = upstream.partition(":")
        entries = msgspec.json.decode(Path(keys).read_bytes())["keys"]
        self.digests = frozenset(bytes.fromhex(entry["sha256"]) for entry in entries)
        self.log = Path(log).open("wb", buffering=1 << 16)  # noqa: SIM115 - open until the end
        self.idle: deque[Upstream] = deque()
        self.busy, self.tokens_left = [0] * _ENDPOINTS, 10**12
        provider = TracerProvider(sampler=ParentBased(TraceIdRatioBased(0.01)))
        provider.add_span_processor(SimpleSpanProcessor(InMemorySpanExporter()))
        self.tracer = provider.get_tracer("sketch")
        self.served = Counter("requests", "", ["model"]).labels("")
        self.seconds = Histogram("seconds", "", ["model"]).labels("")
        self.first_token = Histogram("first_token", "", ["model"]).labels("")
        self.in_flight = Gauge("in_flight", "", ["model"]).labels("")

    def pick(self) -> int:
        one, other = random.randrange(_ENDPOINTS), random.randrange(_ENDPOINTS)
        return one if self.busy[one] <= self.busy[other] else other

    async def connect(self, client: Client, request: bytes) -> None:
        connected = asyncio.get_running_loop().create_connection
        _, upstream = await connected(lambda: Upstream(self), self.host, int(self.port))
        upstream.send(client, request)


class Connection(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)


class Upstream(Connection):
    """A connection to the server; its bytes go to the client as they come."""

    def __init__(self, relay: Relay) -> None:
        self._relay, self._client = relay, cast(Client | None, None)

    def send(self, client: Client, request: bytes) -> None:
        self._client, self._is_complete = client, False
        self._parser = httptools.HttpResponseParser(self)
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        client = self._client
        self._parser.feed_data(data)
        if client is not None:
            client.pass_on(data)
        if client is not None and self._is_complete:
            self._client = None
            self._relay.idle.append(self)
            client.finish()

    def on_body(self, piece: bytes) -> None:
        if self._client is not None:
            self._client.kept.append(piece)

    def on_message_complete(self) -> None:
        self._is_complete = True

    def connection_lost(self, _error: Exception | None) -> None:
        if self._client is not None:
            self._client.transport.abort()


class Client(Connection):
    """A connection of a client: one request after another, from the parsed head to the log line."""

    def __init__(self, relay: Relay) -> None:
        self._relay, self._parser = relay, httptools.HttpRequestParser(self)
        self._target, self._headers, self._body = b"", dict[bytes, bytes](), list[bytes]()
        self.kept: list[bytes] = []

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_url(self, target: bytes) -> None:
        self._target = target

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.lower()] = value

    def on_body(self, piece: bytes) -> None:
        self._body.append(piece)

    def on_message_complete(self) -> None:
        relay, headers, body = self._relay, self._headers, b"".join(self._body)
        self._headers, self._body, self.kept = {}, [], []
        self._began, self._first = time.monotonic(), 0.0
        self._id = headers.get(b"x-request-id") or os.urandom(16).hex().encode()
        self._span = relay.tracer.start_span("request")
        key = headers.get(b"x-api-key") or headers.get(b"authorization", b"")[len(b"Bearer ") :]
        request = _DECODER.decode(body)
        if hashlib.sha256(key).digest() not in relay.digests or not request.is_valid():
            self.transport.write(_REJECTED)
            return
        self._model, self._tokens, self._endpoint = request.model, request.tokens(), relay.pick()
        relay.tokens_left -= self._tokens
        relay.busy[self._endpoint] += 1
        relay.in_flight.inc()
        loop = asyncio.get_running_loop()
        self._stall = loop.call_later(_STALL_SECONDS, self.transport.abort)
        sent = _HEAD % (self._target, self._id, len(body)) + body
        if relay.idle:
            relay.idle.popleft().send(self, sent)
        else:
            self._connecting = loop.create_task(relay.connect(self, sent))

    def pass_on(self, data: bytes) -> None:
        if not self._first:
            self._first = time.monotonic()
            self._relay.first_token.observe(self._first - self._began)
        self.transport.write(data)

    def finish(self) -> None:
        relay, now = self._relay, time.monotonic()
        self._stall.cancel()
        relay.busy[self._endpoint] -= 1
        relay.tokens_left += self._tokens
        relay.in_flight.dec()
        relay.seconds.observe(now - self._began)
        relay.served.inc()
        self._span.end()
        line = {"time": now, "request_id": self._id.decode(), "model": self._model}
        line |= {"seconds": now - self._began, "first_byte_seconds": self._first - self._began}
        relay.log.write(_ENCODER.encode(line | {"outcome": "served"}) + b"\n")


_ENCODER, _DECODER = msgspec.json.Encoder(), msgspec.json.Decoder(Body)
_HEAD = (
    b"POST %b HTTP/1.1\r\nhost: upstream\r\ncontent-type: application/json\r\n"
    b"x-request-id: %b\r\ncontent-length: %d\r\n\r\n"
)


async def main(port: str, *relay: str) -> None:
    shared = Relay(*relay)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Client(shared), "127.0.0.1", int(port))
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
