"""What the gateway's edges, layers and relays hand to each other. No I/O, no gRPC, no HTTP.

An edge decodes just enough of a request to build a frozen `GatewayRequest`; its payload stays
bytes. A `Handler` answers a call with a `Response` for as long as its context is open: slots,
leases and spans live in those contexts, so that they end with the stream and cost nothing per
chunk.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

import msgspec
from opentelemetry.trace import INVALID_SPAN, Span

from autoglm.common.errors import AutoGLMError
from autoglm.gateway.request.memory_budget import Memory, MemoryReservation
from autoglm.gateway.request.principal import ANONYMOUS, Principal
from autoglm.validation import RequestInfo

if TYPE_CHECKING:
    from autoglm.common.rpc import Credentials

Wire = Literal["grpc", "http"]
# Reads a call's body, which counts in the hold; the call as it is then. Raises AutoGLMError.
Receive = Callable[["GatewayRequest", MemoryReservation], Awaitable["GatewayRequest"]]
_UNBOUNDED = Memory(2**63).open("").__enter__()


class Exchange(Protocol):
    """Moves the bytes of a request outside this process: its response cannot be changed here."""

    is_read: bool
    """Whether the response must pass this process, which reads its usage."""

    @property
    def body_bytes(self) -> int:
        """Bytes of the response's body, once it has ended."""
        ...


class GatewayRequest(msgspec.Struct, frozen=True):
    """One request. Times are on the monotonic clock; the deadline is always set.

    Layers make several of each, which a dataclass takes a sixth of a request's instructions for.
    """

    wire: Wire
    route: str
    """A name of few values for spans and metrics: `autoglm.v1.Inference/Chat`, `POST /v1/…`."""
    target: str
    """What is asked of the pod: the gRPC method's path, or the HTTP path with its query."""
    payload: bytes
    request_id: str
    started: float
    deadline: float
    info: RequestInfo | None = None
    """What is asked for; None before the body was read."""
    receive: Receive | None = None
    """Reads the body, once it is known who asks; None where that is done."""
    hold: MemoryReservation = _UNBOUNDED
    """What the request holds of the gateway's memory, until its end."""
    problem: AutoGLMError | None = None
    """What the edge found wrong with its head. Raised by a layer, so that it is observed too."""
    trace_headers: Mapping[str, str] = {}
    """The caller's traceparent and tracestate."""
    headers: Mapping[str, str] = {}
    """Other headers or metadata to pass on to the pod, as the edge chose them."""
    credentials: Credentials = ()
    """Every credential that the caller presents, each with its header's name. Secret."""
    peer: str = ""
    """The IP address that the request came from; a proxy's where there is one."""
    principal: Principal = ANONYMOUS
    """Who asks, once the authenticate layer has verified it."""
    debug: str = ""
    """What the client wants to see of the way of its request; empty for nothing."""
    exchange: Exchange | None = None
    """How to have the bytes moved, where Envoy does it; its answer cannot be read or changed."""
    allows: Callable[[str], bool] | None = None
    """Which addresses, HOST:PORT, the proxy in front goes to; None where it is no matter."""
    only: str = ""
    """The URL of the one endpoint that can serve the request; empty where others can as well."""
    continues: str = ""
    """The key of the exchange that this request goes on with, where Envoy sent it on to us."""

    @property
    def model(self) -> str:
        return self.info.model if self.info else ""

    def __repr__(self) -> str:
        """Without headers and credentials, and without the body."""
        return f"Call({self.wire} {self.route!r}, {self.request_id!r})"


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of a finished request, as the pod counted them."""

    input_tokens: int
    output_tokens: int
    finish_reasons: tuple[str, ...] = ()

    @property
    def total(self) -> int:
        return self.input_tokens + self.output_tokens


Trailers = tuple[tuple[str, str | bytes], ...]


async def no_trailers() -> Trailers:
    return ()


@dataclass(slots=True)
class RequestRecord:
    """What is learnt of one call on its way: for its span, its log line and its metrics."""

    span: Span = INVALID_SPAN
    call: GatewayRequest | None = None
    """The request with its body, once that was read."""
    endpoint: str = ""
    why: str = ""
    decision: object = None
    """The last `routing.Decision`; None before the first."""
    attempts: int = 0
    first_chunk: float = 0.0
    """When the first chunk came from the pod, on the monotonic clock; 0 before that."""
    queued: float = 0.0
    """How long the request waited for its turn, in seconds."""
    usage: Usage | None = None
    principal: Principal | None = None
    """Who asks; None where nobody has to say."""
    is_metered: bool = False
    """Whether the limit layer reads the response's usage, so that no one else has to."""
    recoveries: int = 0
    """How often the stream went on on another endpoint."""


@dataclass(slots=True)
class Response:
    """An answer whose first chunk has come. Valid while its handler's context is open.

    `status` and `headers` are HTTP's. `trailers` may be asked for once `chunks` is exhausted.
    """

    chunks: AsyncIterator[bytes]
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    trailers: Callable[[], Awaitable[Trailers]] = no_trailers
    first_chunk: float = 0.0
    """When that came, on the monotonic clock, where it was long before the reply; else 0."""
    served_by_fallback: bool = False
    """Whether a proxy has gone on to another endpoint, since the picked one did not answer."""


class Handler(Protocol):
    """A layer, or all of them. Entering raises an AutoGLMError where there is no answer."""

    def __call__(
        self, call: GatewayRequest, notes: RequestRecord, /
    ) -> AbstractAsyncContextManager[Response]: ...
