"""Heads of HTTP/1.1 messages (RFC 9112): limits, and requests as bytes. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import urlsplit

MAX_HEAD_BYTES = 64 * 1024
"""Longest head that is read: start line and all header fields. Tokens with many groups fit."""

Fields = list[tuple[bytes, bytes]]
"""Header fields in their order, names in lower case; a name may occur more than once."""

_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Origin:
    """A server, as the base of URLs names it. `path` is a prefix of all targets, often empty."""

    host: str
    port: int
    is_tls: bool
    authority: bytes
    """The value of the Host header."""
    path: str


@lru_cache(maxsize=4096)
def origin_of(base: str) -> Origin:
    """Return the origin of a base URL. Raises ValueError."""
    url = urlsplit(base)
    if url.scheme not in _PORTS or not url.hostname:
        raise ValueError(f"{base!r} is not a base URL; give http://HOST[:PORT] or https://")
    authority = url.netloc.rpartition("@")[2].encode(
        "idna" if not url.netloc.isascii() else "ascii"
    )
    port = url.port or _PORTS[url.scheme]
    return Origin(url.hostname, port, url.scheme == "https", authority, url.path.rstrip("/"))


def request_head(
    method: str, target: str, authority: bytes, fields: Iterable[tuple[str, str]], length: int
) -> bytes:
    """Return the head of a request whose body has `length` bytes.

    Header values keep bytes that are not UTF-8 (surrogateescape). Raises ValueError for a line
    break in any part, which would begin another header or request.
    """
    lines = [f"{method} {target} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in fields]
    if length or method not in ("GET", "HEAD", "DELETE", "OPTIONS"):
        lines.append(f"content-length: {length}")
    head = "\r\n".join(lines)
    if head.count("\n") != len(lines) - 1 or head.count("\r") != len(lines) - 1:
        raise ValueError("a header or the target has a line break")
    return head.encode("utf-8", "surrogateescape") + b"\r\nhost: " + authority + b"\r\n\r\n"


def joined(fields: Fields) -> dict[str, str]:
    """Return header fields as text; repeated ones are joined as RFC 9110 (5.3) allows.

    Values keep bytes that are not UTF-8 (surrogateescape).
    """
    headers = {name.decode(): value.decode("utf-8", "surrogateescape") for name, value in fields}
    if len(headers) == len(fields):
        return headers
    values: dict[str, list[str]] = {}
    for name, value in fields:
        values.setdefault(name.decode(), []).append(value.decode("utf-8", "surrogateescape"))
    return {name: ", ".join(several) for name, several in values.items()}


def field(fields: Fields, name: bytes) -> bytes:
    """Return the first value of a header field; empty where there is none."""
    for key, value in fields:
        if key == name:
            return value
    return b""
