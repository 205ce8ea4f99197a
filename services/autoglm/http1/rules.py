"""A server's rules: the connections and the time that a client may take, and the heads that are
not served.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from autoglm.http1.exchange import BadBody, Exchange
from autoglm.http1.heads import Fields, field

Handler = Callable[[Exchange], Awaitable[None]]
Reject = Callable[[Exchange, int, str], None]
"""Responds to a request that is not served, with this status and reason for the client.

The exchange has what had arrived of target and fields; nothing for a connection over the limit."""

CloseReason = Literal[
    "client",
    "finished",
    "idle",
    "slow_head",
    "slow_body",
    "stalled_reader",
    "invalid",
    "limit",
    "limit_per_address",
    "drain",
    "aborted",
]
RejectReason = Literal["limit", "limit_per_address", "proxy_header", "tls_handshake"]


class Events(Protocol):
    """Counts a server's connections."""

    def accepted(self) -> None: ...

    def closed(self, reason: CloseReason, /) -> None: ...

    def rejected(self, reason: RejectReason, /) -> None: ...


class NoEvents:
    """Counts nothing."""

    def accepted(self) -> None: ...

    def closed(self, reason: CloseReason, /) -> None: ...

    def rejected(self, reason: RejectReason, /) -> None: ...


@dataclass(frozen=True, slots=True)
class Limits:
    """Connections at once, and which of them are one client's."""

    connections: int = 10_000
    per_address: int = 10_000
    network_of: Callable[[str], str] = str
    """Returns what counts as one client of an address."""
    is_proxy: Callable[[str], bool] | None = None
    """Returns whether an address is a trusted proxy's: one that may name its client, by the PROXY
    protocol, and whose own connections only count against `connections`."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds that a client may take."""

    head: float = 15.0
    """From the first byte of a request to the end of its head; for a TLS handshake and a PROXY
    header as well."""
    idle: float = 75.0
    """Between two requests, and before the first."""
    body: float = 20.0
    """In which at least `min_body_bytes` of a body must arrive, while the handler reads it."""
    write: float = 60.0
    """In which a client that reads nothing is given up."""
    linger: float = 2.0
    """In which what a rejected client still sends is discarded, so that it reads the response."""
    min_body_bytes: int = 1024


DEFAULT_LIMITS, DEFAULT_TIMEOUTS = Limits(), Timeouts()


# RFC 3986 (3.2.2): a name or an address of IPv4, or one of IPv6 in brackets. It may be empty.
_HOST = re.compile(rb"(?:[\w.~!$&'()*+,;=%-]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]*)?", re.ASCII)


def check_head(
    method: str, version: str, fields: Fields, *, is_local: bool = False
) -> tuple[int, bool]:
    """Check what llhttp leaves to its user. Raises BadBody.

    `is_local`: the client is a proxy on a Unix socket, which has checked the Host of its client. A
    gRPC client's may have several addresses.

    Returns the length of the body in bytes, -1 where only its end shows it, and whether the client
    waits for `100 Continue` before it sends it.
    """
    named = dict(fields)
    if version not in ("1.1", "1.0"):
        raise BadBody(505, f"HTTP/{version} is not supported; use HTTP/1.1")
    if method == "CONNECT":
        raise BadBody(405, "CONNECT is not supported; this is no proxy")
    hosts = int(b"host" in named)
    if len(named) < len(fields):
        hosts = [name for name, _ in fields].count(b"host")
    if hosts > 1 or (hosts == 0 and version == "1.1"):
        raise BadBody(400, f"the request has {hosts} Host headers; send one")
    if hosts and not is_local and not _HOST.fullmatch(named[b"host"]):
        raise BadBody(400, "header Host is not HOST or HOST:PORT; send one of them")
    # The first of several is the one that counts, as in `heads.field`.
    coding = field(fields, b"transfer-encoding") if b"transfer-encoding" in named else b""
    if coding and version == "1.0":
        raise BadBody(400, "HTTP/1.0 has no Transfer-Encoding; use HTTP/1.1")
    if coding and coding.strip().lower() != b"chunked":
        raise BadBody(501, "Transfer-Encoding other than chunked is not supported")
    if coding and named.get(b"upgrade"):
        raise BadBody(501, "Upgrade with a chunked body is not supported; send Content-Length")
    expected = field(fields, b"expect").lower() if b"expect" in named else b""
    if expected and expected != b"100-continue":
        raise BadBody(417, "Expect other than 100-continue is not supported")
    announced = -1 if coding else int(named.get(b"content-length") or b"0")
    return announced, bool(expected) and announced != 0 and version != "1.0"
