"""A request whose bytes Envoy moves: its directions to Envoy, and its outcome. No I/O.

The picker's edge creates an `Exchange` and sends its directions to Envoy; `upstream` sets them and
waits for the outcome. That is either the end of the request, reported by Envoy, or the request
itself at one of the gateway's own servers, because the pod did not respond or Envoy was directed
there. In that case `TakeOver` resumes it, and the gateway proxies the response.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from autoglm.common.errors import AutoGLMError, Cancelled
from autoglm.common.status import TokenUsage
from autoglm.gateway.request.request import (
    Deliver,
    GatewayRequest,
    Handler,
    RequestRecord,
    Response,
    Wire,
)

# The least size of a streamed message with a token in it.
_LEAST_BYTES = 10


@dataclass(frozen=True, slots=True)
class Directions:
    """Where Envoy sends a request: `address` is the pod's HOST:PORT; empty for the gateway."""

    address: str = ""
    set_headers: Mapping[str, str] = field(default_factory=dict)
    removed_headers: tuple[str, ...] = ()
    timeout: float = 0.0
    """The seconds until the request's deadline."""


@dataclass(frozen=True, slots=True)
class End:
    """How a request on a pod ended, reported by Envoy. `first_chunk` is a monotonic time or 0."""

    status: int
    error: AutoGLMError | None = None
    usage: TokenUsage | None = None
    first_chunk: float = 0.0
    body_bytes: int = 0
    served: str = ""
    """The address that responded, if the proxy reports it; it may have used a fallback."""


class Exchange:
    """One request that Envoy moves. `key` is Envoy's name for it.

    Used by one task, except for `end` and `take_over`. `is_external_proxy`: the Envoy is another
    gateway's, which cannot forward the request to this gateway.
    """

    has_chunks = False

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
        """The names of the client's headers, in lower case."""
        self.on_left: Callable[[], object] = lambda: None
        """Called if the client of a request that was taken over leaves before its response."""
        self.is_read = False
        """Whether the response must pass through this process, which reads its usage."""
        self.directions: asyncio.Future[Directions | AutoGLMError] = loop.create_future()
        self._outcome: asyncio.Future[End | GatewayRequest] = loop.create_future()
        self._end: End | None = None
        self.taken: GatewayRequest | None = None
        """The request at the gateway's own server; None while Envoy moves it."""
        self._response: asyncio.Future[Response | AutoGLMError] = loop.create_future()
        self._delivered: asyncio.Future[BaseException | None] = loop.create_future()

    @property
    def usage(self) -> TokenUsage | None:
        """Return the usage that the pod reported to Envoy."""
        return self._end.usage if self._end else None

    @property
    def served(self) -> str:
        """Return the address that responded, if known, once the request has ended."""
        return self._end.served if self._end else ""

    # Called by the limit layer.

    def require_usage(self) -> None:
        """Direct an HTTP response through this process: only a reader of its body has the usage."""
        self.is_read = self.is_read or self.wire == "http"

    def generated(self, counted: int, reserved: float) -> int:
        """Return an upper bound by the size of the response, which this process did not read."""
        body_bytes = self._end.body_bytes if self._end else 0
        return min(int(reserved), body_bytes // _LEAST_BYTES)

    # Called by the upstream.

    async def send(self, directions: Directions) -> End | GatewayRequest:
        """Set the directions to Envoy and return the outcome; call it once."""
        if not self.directions.done():
            self.directions.set_result(directions)
        return await self._outcome

    # Called by the edge's task.

    async def deliver(self, response: Response) -> None:
        """Wait until the client has the whole response. Raises the error of the delivery."""
        if self.taken is None:
            await response.forward(_no_chunk)
            return
        if not self._response.done():
            self._response.set_result(response)
        if (failure := await self._delivered) is not None:
            raise failure

    def fail(self, error: AutoGLMError) -> None:
        """Deliver an error instead of directions or of a response."""
        if not self.directions.done():
            self.directions.set_result(error)
        elif not self._response.done():
            self._response.set_result(error)

    # Called with Envoy's report.

    def end(self, end: End) -> None:
        """Set the end of the request."""
        if not self._outcome.done():
            self._end = end
            self._outcome.set_result(end)

    # Called by the gateway's own servers.

    def take_over(self, request: GatewayRequest) -> bool:
        """Resume with this request; returns False if the request has an outcome already."""
        if self._outcome.done():
            return False
        self.taken = request
        self._outcome.set_result(request)
        return True

    async def response(self) -> Response:
        """Wait for the response. Raises AutoGLMError if there is none."""
        found = await self._response
        if isinstance(found, AutoGLMError):
            raise found
        return found

    def delivered(self, failure: BaseException | None) -> None:
        """Set the end of the delivery to the client, with its error if it failed."""
        if isinstance(failure, asyncio.CancelledError | GeneratorExit):
            failure = Cancelled("the client disconnected")
        response = self._response
        if not response.done() or response.cancelled():
            response.cancel()
            self.on_left()
        if not self._delivered.done():
            self._delivered.set_result(failure)


class Exchanges:
    """The open exchanges, by key."""

    def __init__(self) -> None:
        self._open: dict[str, Exchange] = {}
        self.opened = 0
        """The number of exchanges opened so far."""

    def __len__(self) -> int:
        return len(self._open)

    def open(self, exchange: Exchange) -> None:
        """Add an exchange."""
        self._open[exchange.key] = exchange
        self.opened += 1

    def get(self, key: str) -> Exchange | None:
        """Return the open exchange of the key."""
        return self._open.get(key)

    def close(self, exchange: Exchange) -> None:
        """Remove an exchange."""
        self._open.pop(exchange.key, None)


class TakeOver:
    """A `Handler` that resumes requests which Envoy forwarded to the gateway's own servers.

    Such a request names its exchange and has passed the pipeline already; its response is made
    where it was admitted. All others pass the pipeline.
    """

    def __init__(self, exchanges: Exchanges, pipeline: Handler) -> None:
        self._exchanges = exchanges
        self._pipeline = pipeline

    async def __call__(
        self, request: GatewayRequest, record: RequestRecord, deliver: Deliver
    ) -> None:
        exchange = self._exchanges.get(request.continues) if request.continues else None
        if exchange is None:
            await self._pipeline(request, record, deliver)
        else:
            await _resume(exchange, request, deliver)


async def _resume(exchange: Exchange, request: GatewayRequest, deliver: Deliver) -> None:
    if request.receive is not None:
        # Its memory is counted already.
        request = await request.receive(request, request.hold)
    if not exchange.take_over(request):
        raise Cancelled("the request has ended")
    failure: BaseException | None = None
    try:
        await deliver(await exchange.response())
    except BaseException as error:
        failure = error
        raise
    finally:
        exchange.delivered(failure)


def _no_chunk(chunk: bytes) -> None:
    raise AssertionError("Envoy moves the bytes of the response")
