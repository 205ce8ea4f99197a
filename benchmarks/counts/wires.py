"""Clients and pods without sockets, so that nothing depends on how bytes happen to arrive.

A pod sends its chunks with turns of the event loop in between, as if each came by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Generator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from autoglm.http1.connection import Connection
from autoglm.http1.pool import Pool

# More than a chunk takes through the gateway.
TURNS = 20


class Turns:
    """Awaited, it lets the loop turn so often, at no timer's cost.

    No dataclass, whose methods would be counted: they are in no file of the benchmarks.
    """

    def __init__(self, count: int = TURNS) -> None:
        self.count = count

    def __await__(self) -> Generator[None, None, None]:
        for _ in range(self.count):
            yield


def after_turns() -> asyncio.Future[None]:
    """Return what is done after some turns of the loop.

    It wakes the task that awaits it once, as a message of gRPC does.
    """
    loop = asyncio.get_running_loop()
    done = loop.create_future()

    def turn(left: int) -> None:
        if left:
            loop.call_soon(turn, left - 1)
        elif not done.done():
            done.set_result(None)

    turn(TURNS)
    return done


@dataclass(eq=False)
class Wire(asyncio.Transport):
    """A connection's end. What the protocol behind it writes goes to `take`."""

    protocol: asyncio.Protocol
    take: Callable[[bytes], object]
    is_closed: bool = False

    def __post_init__(self) -> None:
        super().__init__()

    def write(self, data: Any) -> None:
        self.take(bytes(data))

    def writelines(self, parts: Any) -> None:
        self.take(b"".join(parts))

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        ends = {"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 2)}
        return ends.get(name, default)

    def is_closing(self) -> bool:
        return self.is_closed

    def close(self) -> None:
        if not self.is_closed:
            self.is_closed = True
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)

    abort = close

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        """Nothing comes unasked."""

    resume_reading = pause_reading


class HttpPods(Pool):
    """Connections to pods whose response to every request is these parts, head first."""

    def __init__(self, parts: Callable[[], Sequence[bytes]]) -> None:
        super().__init__(connect_seconds=1.0, keepalive_seconds=3600.0)
        self._parts = parts
        self.hold = asyncio.Event()
        """Set while pods may continue behind their first chunk."""
        self.hold.set()
        self._sending: set[asyncio.Task[None]] = set()

    async def _connect(self, key: tuple[str, int, bool], ends_at: float) -> Connection:
        protocol = Connection(partial(self._keep, key), self._open.discard)

        def take(data: bytes) -> None:
            # The gateway writes a request's head and its body, in one piece or in two.
            if data.endswith(b"}"):
                task = asyncio.create_task(self._respond(protocol))
                self._sending.add(task)
                task.add_done_callback(self._sending.discard)

        protocol.connection_made(Wire(protocol, take))
        return protocol

    async def _respond(self, protocol: Connection) -> None:
        head, first, *rest = self._parts()
        await Turns()
        protocol.data_received(head + first)
        for part in rest:
            await Turns()
            await self.hold.wait()
            protocol.data_received(part)


class HttpClient:
    """One connection to the gateway's REST edge, whose protocol is `server`."""

    def __init__(self, server: asyncio.Protocol) -> None:
        self._server = server
        self.received = b""
        self.writes = 0
        self._wire = Wire(server, self._take)
        server.connection_made(self._wire)

    def _take(self, data: bytes) -> None:
        self.received += data
        self.writes += 1

    async def request(self, request: bytes, end: bytes) -> bytes:
        """The response, which ends so."""
        self.received = b""
        self._server.data_received(request)
        await self.until(end)
        return self.received

    async def until(self, end: bytes) -> None:
        while not self.received.endswith(end):
            await Turns(1)
        await Turns()

    def close(self) -> None:
        self._wire.close()


@dataclass
class GrpcContext:
    """What a servicer sees of a client."""

    metadata: tuple[tuple[str, str], ...]
    trailers: Any = ()
    failure: str = ""
    messages: list[bytes] = field(default_factory=list)

    async def write(self, message: bytes) -> None:
        self.messages.append(message)

    def time_remaining(self) -> float:
        return 600.0

    def peer(self) -> str:
        return "ipv4:127.0.0.1:1"

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return self.metadata

    async def send_initial_metadata(self, _: Any) -> None:
        """It is not read."""

    def set_trailing_metadata(self, trailers: Any) -> None:
        self.trailers = trailers

    def trailing_metadata(self) -> Any:
        return self.trailers

    async def abort(self, code: Any, message: str, trailers: Any = ()) -> None:
        raise AssertionError(f"{code}: {message}")


@dataclass
class GrpcPods:
    """In place of `Channels`: every method of every pod responds with these messages."""

    messages: Callable[[], Sequence[bytes]]
    trailers: tuple[tuple[str, str], ...] = ()
    hold: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.hold.set()

    def get(self, _: Any) -> GrpcPods:
        return self

    @property
    def raw(self) -> GrpcPods:
        return self

    def __getitem__(self, path: str) -> Callable[..., _GrpcCall]:
        return lambda payload, timeout, metadata: _GrpcCall(self)


class _GrpcCall:
    def __init__(self, pods: GrpcPods) -> None:
        self._pods = pods

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for number, message in enumerate(self._pods.messages()):
            await after_turns()
            if number:
                await self._pods.hold.wait()
            yield message

    def __await__(self) -> Generator[Any, None, Any]:
        yield from after_turns().__await__()
        return self._pods.messages()[0]

    async def trailing_metadata(self) -> tuple[tuple[str, str], ...]:
        return self._pods.trailers

    def cancel(self) -> None:
        """It has ended."""


async def one(payload: bytes) -> AsyncIterator[bytes]:
    yield payload
