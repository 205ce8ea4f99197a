"""One call whose bytes Envoy moves: what Envoy is told of it, and what becomes of it. No I/O.

The picker's edge makes an `Exchange` and gives Envoy its directions; the `upstream` says what they
are and waits. Then comes one of two things: the call's end, which Envoy reports; or the request
itself, at one of the gateway's own servers, because the pod did not answer or because Envoy was
directed there. In that case the call goes on through the gateway (`takeover`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from autoglm.common.errors import AutoGLMError, Cancelled
from autoglm.gateway.request.request import GatewayRequest, Response, Usage, Wire

if TYPE_CHECKING:
    pass

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Directions:
    """What Envoy does with a request: `address` is the pod's, HOST:PORT; empty for ourselves."""

    address: str = ""
    set_headers: Mapping[str, str] = field(default_factory=dict)
    removed_headers: tuple[str, ...] = ()
    timeout: float = 0.0
    """What is left of the call's deadline, in seconds."""


@dataclass(frozen=True, slots=True)
class End:
    """How a call on a pod has ended, as Envoy saw it. `first_chunk` is a monotonic time or 0."""

    status: int
    error: AutoGLMError | None = None
    usage: Usage | None = None
    first_chunk: float = 0.0
    body_bytes: int = 0
    served: str = ""
    """The address that has answered, where the proxy tells; it may have gone down a list."""


class Exchange:
    """`key` is Envoy's name for it. Used by one task, but for `end` and `take_over`.

    `is_external_proxy`: the Envoy is another gateway's, which cannot send the call on to us.
    """

    def __init__(
        self,
        key: str,
        wire: Wire,
        request_headers: frozenset[str] = frozenset(),
        *,
        is_external_proxy: bool = False,
    ) -> None:
        loop = asyncio.get_running_loop()
        self.key = key
        self.wire = wire
        self.is_external_proxy = is_external_proxy
        self.request_headers = request_headers
        """The names of what the client sent, in lower case."""
        self.on_left: Callable[[], object] = lambda: None
        """Called when the client of a call that was taken over leaves before its answer."""
        self.is_read = False
        """Whether somebody has to read the answer, so that it must not go past us."""
        self.directions: asyncio.Future[Directions | AutoGLMError] = loop.create_future()
        self._outcome: asyncio.Future[End | GatewayRequest] = loop.create_future()
        self._reply: asyncio.Future[Response | AutoGLMError] = loop.create_future()
        self._delivered: asyncio.Future[BaseException | None] = loop.create_future()

    @property
    def taken(self) -> GatewayRequest | None:
        """The request as one of our own servers has it; None while it is Envoy's."""
        outcome = _result(self._outcome)
        return outcome if isinstance(outcome, GatewayRequest) else None

    @property
    def usage(self) -> Usage | None:
        """What the pod told Envoy."""
        return self._end.usage if self._end else None

    @property
    def served(self) -> str:
        """Who has answered, where that is known once the call has ended."""
        return self._end.served if self._end else ""

    @property
    def body_bytes(self) -> int:
        """Of the answer on the wire, once it has ended."""
        return self._end.body_bytes if self._end else 0

    @property
    def _end(self) -> End | None:
        outcome = _result(self._outcome)
        return outcome if isinstance(outcome, End) else None

    # For the upstream.

    async def send(self, directions: Directions) -> End | GatewayRequest:
        """Directs Envoy. What became of it; to be asked once."""
        if not self.directions.done():
            self.directions.set_result(directions)
        return await self._outcome

    # For the edge's task.

    async def deliver(self, reply: Response) -> None:
        """Until the client has all of the reply. Raises what went wrong with that."""
        if self.taken is None:
            async for _ in reply.chunks:
                raise AssertionError("Envoy has the answer's bytes")
            return
        if not self._reply.done():
            self._reply.set_result(reply)
        if (failure := await self._delivered) is not None:
            raise failure

    def fail(self, error: AutoGLMError) -> None:
        """There is no answer: tells whoever waits for one."""
        if not self.directions.done():
            self.directions.set_result(error)
        elif not self._reply.done():
            self._reply.set_result(error)

    # For Envoy's report.

    def end(self, end: End) -> None:
        if not self._outcome.done():
            self._outcome.set_result(end)

    # For our own servers.

    def take_over(self, call: GatewayRequest) -> bool:
        """Whether the call goes on with this request; it does once."""
        if self._outcome.done():
            return False
        self._outcome.set_result(call)
        return True

    async def reply(self) -> Response:
        found = await self._reply
        if isinstance(found, AutoGLMError):
            raise found
        return found

    def delivered(self, failure: BaseException | None) -> None:
        """The client has all of the reply, or never will."""
        if isinstance(failure, asyncio.CancelledError | GeneratorExit):
            failure = Cancelled("the caller went away")
        if _result(self._reply) is None:
            self._reply.cancel()
            self.on_left()
        if not self._delivered.done():
            self._delivered.set_result(failure)


def _result(future: asyncio.Future[T]) -> T | None:
    """None where there is none yet, and where whoever waited for it has gone."""
    return future.result() if future.done() and not future.cancelled() else None


class Exchanges:
    """Those under way, by key."""

    def __init__(self) -> None:
        self._open: dict[str, Exchange] = {}
        self.opened = 0
        """How many there have been."""

    def __len__(self) -> int:
        return len(self._open)

    def open(self, exchange: Exchange) -> None:
        self._open[exchange.key] = exchange
        self.opened += 1

    def get(self, key: str) -> Exchange | None:
        return self._open.get(key)

    def close(self, exchange: Exchange) -> None:
        self._open.pop(exchange.key, None)
