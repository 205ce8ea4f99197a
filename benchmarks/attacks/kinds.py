"""The table of attacks: what connections write, how many there are, and how fast they write."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal

from benchmarks.attacks import http1, http2
from benchmarks.attacks.http2 import Writes

Forms = Callable[[str], Iterator[tuple[str, bytes]]]


@dataclass(frozen=True, slots=True)
class Connection:
    """What one connection writes, one value after the other; `label` precedes what it sees."""

    writes: Iterator[bytes]
    label: str = ""


@dataclass(frozen=True, slots=True)
class Kind:
    """One attack. `connect` takes the attacker's own API key."""

    name: str
    wire: Literal["gRPC", "REST"]
    what: str
    connect: Callable[[str], list[Connection]]
    pause: float = 0.01
    """Seconds between two writes of a connection."""
    reads: bool = True


def _same(writes: Writes, count: int, key: str) -> list[Connection]:
    return [Connection(writes(key)) for _ in range(count)]


def _each(forms: Forms, key: str) -> list[Connection]:
    return [Connection(iter((data,)), f"{label}: ") for label, data in forms(key)]


def _many(writes: Writes, count: int) -> Callable[[str], list[Connection]]:
    return partial(_same, writes, count)


KINDS = (
    Kind("rapid-reset", "gRPC", "10,000 streams, each reset at once", _many(http2.rapid_reset, 1)),
    Kind("watch", "gRPC", "400 health watches without a credential", _many(http2.watches, 4)),
    Kind(
        "continuation", "gRPC", "a header block without an end", _many(http2.continuation_flood, 1)
    ),
    Kind("ping", "gRPC", "10,000 pings a second, 50,000 at most", _many(http2.ping_flood, 1)),
    Kind(
        *("ping-unread", "gRPC", "the same, and the acknowledgements are not read"),
        _many(http2.ping_flood, 1),
        reads=False,
    ),
    Kind(
        "settings", "gRPC", "10,000 changes of the window a second", _many(http2.settings_flood, 1)
    ),
    Kind("hpack", "gRPC", "20 header blocks of 31 MB in 12 kB each", _many(http2.hpack_bomb, 1)),
    Kind(
        *("zero-window", "gRPC", "20 streams of a tenant that never get a window"),
        _many(http2.zero_window, 1),
    ),
    Kind(
        *("one-byte-chunks", "REST", "0.2 MB/s of one-byte chunks without a credential"),
        _many(http1.one_byte_chunks, 1),
        pause=0.06,
    ),
    Kind("slow-head", "REST", "50 heads, ten bytes a second", _many(http1.slow_head, 50), 0.1),
    Kind("slow-body", "REST", "50 bodies, ten bytes a second", _many(http1.slow_body, 50), 0.1),
    Kind("idle", "REST", "600 connections that send nothing", _many(http1.idle, 600)),
    Kind("pipelining", "REST", "5,000 requests on one connection", _many(http1.pipelining, 1)),
    Kind(
        *("pipelining-unread", "REST", "the same, and the responses are not read"),
        _many(http1.pipelining, 1),
        reads=False,
    ),
    Kind("smuggling", "REST", "heads that RFC 9112 rejects", partial(_each, http1.smuggling)),
    Kind("oversize-head", "REST", "heads of 7 kB to 1 MB", partial(_each, http1.oversize)),
    Kind(
        *("never-read", "REST", "20 streams of a tenant that are not read"),
        _many(http1.never_read, 20),
        reads=False,
    ),
)
BY_NAME = {kind.name: kind for kind in KINDS}
