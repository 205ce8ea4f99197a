"""The bytes of attacks over HTTP/1.1, and what a server's responses say.

Each function yields what one connection writes, and holds no socket.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator

Writes = Callable[[str], Iterator[bytes]]
CHUNKS, CHUNKS_TOGETHER = 400_000, 2_000
SLOW_BYTES = 10_000
PIPELINED = 5_000
UNREAD_TOKENS = 50_000
_PATH = "/v1/chat/completions"
_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})")
_TOGETHER = 50
# A status line's longest prefix that is not yet whole.
_TAIL = len(b"HTTP/1.1 20")


def one_byte_chunks(_: str) -> Iterator[bytes]:
    """Yield a body without a credential in chunks of one byte."""
    yield _head("transfer-encoding: chunked")
    for _unused in range(0, CHUNKS, CHUNKS_TOGETHER):
        yield b"1\r\nx\r\n" * CHUNKS_TOGETHER


def slow_head(_: str) -> Iterator[bytes]:
    """Yield a head that never ends, a field name of one byte after the other."""
    yield _head("x-slow: ").removesuffix(b"\r\n\r\n")
    for _unused in range(SLOW_BYTES):
        yield b"y"


def slow_body(key: str) -> Iterator[bytes]:
    """Yield a body with a credential, a byte at a time."""
    yield _head(f"x-api-key: {key}", f"content-length: {10 * SLOW_BYTES}")
    for _unused in range(SLOW_BYTES):
        yield b" "


def idle(_: str) -> Iterator[bytes]:
    yield b""


def pipelining(_: str) -> Iterator[bytes]:
    """Yield requests that wait for no response."""
    requests = b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\n\r\n" * _TOGETHER
    for _unused in range(0, PIPELINED, _TOGETHER):
        yield requests


def never_read(key: str) -> Iterator[bytes]:
    """Yield one request for a long stream, which the client does not read."""
    body = chat(UNREAD_TOKENS, stream=True)
    yield _head(f"x-api-key: {key}", f"content-length: {len(body)}") + body


def smuggling(key: str) -> Iterator[tuple[str, bytes]]:
    """Yield each form that RFC 9112 rejects, by name, with a request behind it."""
    body = chat(2)
    length, second = f"content-length: {len(body)}", b"GET /v1/models HTTP/1.1\r\nhost: b\r\n\r\n"
    auth, chunked = f"x-api-key: {key}", "transfer-encoding: chunked"
    whole = f"{len(body):x}\r\n".encode() + body + b"\r\n0\r\n\r\n"
    yield "CL and TE", _head(auth, length, chunked) + whole + second
    yield "two CL", _head(auth, length, "content-length: 5") + body + second
    yield "CL list", _head(auth, f"{length}, 5") + body + second
    yield "signed CL", _head(auth, f"content-length: +{len(body)}") + body + second
    yield "TE twice", _head(auth, chunked, "transfer-encoding: identity") + whole + second
    yield "TE unknown", _head(auth, "transfer-encoding: xchunked") + whole + second
    yield "space before colon", _head(auth, f"content-length : {len(body)}") + body + second
    yield "obs-fold", _head(auth, length, "x-folded: a\r\n b") + body + second
    yield "obs-fold in TE", _head(auth, "transfer-encoding:\r\n chunked") + whole + second
    yield "bare CR", _head(auth, length, "x-bare: a\rb") + body + second
    yield "bare LF", _head(auth, length).replace(b"\r\n", b"\n") + body + second
    yield "two Hosts", _head(auth, length, "host: other") + body + second
    yield "no Host", _head(auth, length).replace(b"host: localhost\r\n", b"") + body + second
    yield "NUL in a value", _head(auth, length, "x-nul: a\0b") + body + second
    yield "bare LF in chunks", _head(auth, chunked) + whole.replace(b"\r\n", b"\n") + second
    yield "chunk size over 64 bits", _head(auth, chunked) + b"1" + b"0" * 16 + b"\r\n" + whole


def oversize(_: str) -> Iterator[tuple[str, bytes]]:
    """Yield heads of growing length, by name."""
    for size in (7, 15, 60, 100, 1_000):
        yield f"{size} kB", _head("x-long: " + "y" * size * 1000)
    yield "10,000 fields", _head(*(f"x-{number}: y" for number in range(10_000)))
    yield "target of 100 kB", _head().replace(_PATH.encode(), b"/" + b"z" * 100_000)


def chat(tokens: int, *, stream: bool = False) -> bytes:
    """Return a small request's body."""
    messages = [{"role": "user", "content": "a b c d e"}]
    body = {"model": "echo", "max_tokens": tokens, "messages": messages, "ignore_eos": True}
    return json.dumps(body | {"stream": stream}).encode()


def _head(*lines: str) -> bytes:
    first = (f"POST {_PATH} HTTP/1.1", "host: localhost", "content-type: application/json")
    return "\r\n".join((*first, *lines, "", "")).encode("latin-1")


class Reader:
    """Reads a server's responses from bytes as they come."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[str]:
        """Yield the status of each response."""
        self._rest += data
        end = 0
        for found in _STATUS.finditer(self._rest):
            end = found.end()
            yield found[1].decode()
        self._rest = self._rest[max(end, len(self._rest) - _TAIL) :]
