"""A request and its response inside the gateway, for both wires. No I/O, no gRPC, no HTTP.

An edge decodes just enough of a request to build a frozen `GatewayRequest`; the payload stays
bytes. A `Handler` passes the `Response` to the edge's `deliver` and returns when it has been
delivered: slots, leases and spans are held until then, and cost nothing per chunk.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Literal, Protocol

import msgspec
from opentelemetry.trace import INVALID_SPAN, Span

from autoglm.common.errors import AutoGLMError
from autoglm.gateway.request.memory_budget import Memory, MemoryReservation
from autoglm.gateway.request.principal import ANONYMOUS, Principal
from autoglm.validation import RequestInfo

if TYPE_CHECKING:
    from autoglm.common.rpc import Credentials
    from autoglm.common.status import TokenUsage

Wire = Literal["grpc", "http"]
# Reads the body into the memory reservation and returns the complete request. Raises AutoGLMError.
Receive = Callable[["GatewayRequest", MemoryReservation], Awaitable["GatewayRequest"]]
_UNBOUNDED = Memory(2**63).open("")


class Exchange(Protocol):
    """Capabilities of a request's data plane: `embedded` here, Envoy's in `envoy.exchange`."""

    @property
    def has_chunks(self) -> bool:
        """Return whether chunks pass through this process, which can time and recover them."""
        ...

    def require_usage(self) -> None:
        """Ensure that the usage is known at the end, even if that takes reading the body."""
        ...

    def generated(self, counted: int, reserved: float) -> int:
        """Return the tokens of the response so far; `counted` are those that were read here."""
        ...


class EmbeddedExchange:
    """The exchange of the embedded data plane: this process reads every chunk."""

    has_chunks = True

    def require_usage(self) -> None:
        """Do nothing: every response is read."""

    def generated(self, counted: int, reserved: float) -> int:
        """Return the counted tokens."""
        return counted


_EMBEDDED = EmbeddedExchange()


class GatewayRequest(msgspec.Struct, frozen=True):
    """One request. Times are on the monotonic clock; the deadline is always set.

    A msgspec struct: steps of the pipeline copy it several times, and copies of a dataclass would
    take a sixth of a request's instructions.
    """

    wire: Wire
    route: str
    """The low-cardinality name in spans and metrics: `autoglm.v1.Inference/Chat`, `POST /v1/…`."""
    target: str
    """The gRPC method's path, or the HTTP path with its query string."""
    payload: bytes
    request_id: str
    started: float
    deadline: float
    info: RequestInfo | None = None
    """What the body requests; None before it was read."""
    receive: Receive | None = None
    """Reads the body once the caller is authenticated; None after that."""
    hold: MemoryReservation = _UNBOUNDED
    """The request's part of the memory budget, until it ends."""
    problem: AutoGLMError | None = None
    """What the edge found wrong with the headers; the pipeline raises it once it is observed."""
    trace_headers: Mapping[str, str] = {}
    """The caller's traceparent and tracestate."""
    headers: Mapping[str, str] = {}
    """Other headers or metadata that the edge chose to forward to the pod."""
    credentials: Credentials = ()
    """Every credential that the client presents, each with its header's name. Secret."""
    peer: str = ""
    """The client's IP address: of the connection's other end, or as a trusted proxy reports it."""
    principal: Principal = ANONYMOUS
    """The caller, after authentication."""
    debug: str = ""
    """What the client wants to see of its routing decision; empty for nothing."""
    exchange: Exchange = _EMBEDDED
    """What the request's data plane can do."""
    allows: Callable[[str], bool] | None = None
    """Returns whether the proxy in front can reach an address HOST:PORT; None without a limit."""
    only: str = ""
    """The URL of the only endpoint that can serve the request; empty if any can."""
    continues: str = ""
    """The key of the exchange that this request resumes, if Envoy forwarded it to the gateway."""

    @property
    def model(self) -> str:
        """Return the requested model; empty before the body was read."""
        return self.info.model if self.info else ""

    def __repr__(self) -> str:
        """Return a text without headers, credentials and the body."""
        return f"GatewayRequest({self.wire} {self.route!r}, {self.request_id!r})"


Trailers = tuple[tuple[str, str | bytes], ...]


async def no_trailers() -> Trailers:
    """Return no trailers, the default of a response."""
    return ()


class RequestRecord(msgspec.Struct):
    """The pipeline's record of one request, for its span, access log and metrics."""

    span: Span = INVALID_SPAN
    request: GatewayRequest | None = None
    """The request with its body, once read."""
    endpoint: str = ""
    why: str = ""
    decision: object = None
    """The last `routing.Decision`; None before the first."""
    attempts: int = 0
    status: int = 0
    """The HTTP status of the response; 0 before there is one."""
    first_chunk: float = 0.0
    """When the first chunk arrived from the pod, on the monotonic clock; 0 before that."""
    queued: float = 0.0
    """Seconds that the request waited in the queue."""
    usage: TokenUsage | None = None
    principal: Principal | None = None
    """The caller; None if authentication is not configured."""
    is_metered: bool = False
    """Whether rate limiting reads the response's usage, so that the edge need not."""
    recoveries: int = 0
    """How often the stream was resumed on another endpoint."""


Write = Callable[[bytes], Awaitable[None] | None]
"""Takes a chunk. What it returns is awaited before the next chunk: the receiver is slow."""
Forward = Callable[[Write], Awaitable[None]]
"""Passes the chunks of a body to a `Write`, and returns after the last. Raises AutoGLMError
(StreamBroken where the endpoint disconnects), and the errors of the `Write`."""


def whole(body: bytes) -> Forward:
    """Return what forwards a whole body as one chunk."""

    async def forward(write: Write) -> None:
        waiting = write(body)
        if waiting is not None:
            await waiting

    return forward


def _keep() -> None:
    """Close nothing: the default of a response."""


class Response(msgspec.Struct):
    """A response whose first chunk has arrived.

    `status` and `headers` are those of HTTP; names are in lower case. Call `trailers` once
    `forward` has returned.
    """

    forward: Forward
    """Call it once."""
    status: int = 200
    headers: Mapping[str, str] = {}
    """Without Set-Cookie."""
    trailers: Callable[[], Awaitable[Trailers]] = no_trailers
    first_chunk: float = 0.0
    """When the first chunk arrived, on the monotonic clock, if long before the response; else 0."""
    served_by_fallback: bool = False
    """Whether a proxy used another endpoint because the picked one did not respond."""
    cookies: tuple[str, ...] = ()
    """The values of Set-Cookie."""
    close: Callable[[], object] = _keep
    """Ends the exchange with the endpoint, and cancels the request there if it still runs."""


async def body_of(response: Response) -> bytes:
    """Return the whole body of a response. Raises as `Response.forward` does."""
    chunks: list[bytes] = []
    await response.forward(chunks.append)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


Deliver = Callable[[Response], Awaitable[None]]
"""Sends a response to the client, to its end. Raises AutoGLMError, Cancelled among them."""


class Handler(Protocol):
    """Responds to a request: calls `deliver` once, or raises an AutoGLMError."""

    async def __call__(
        self, request: GatewayRequest, record: RequestRecord, deliver: Deliver, /
    ) -> None: ...
