"""What RFC 9110 and RFC 9112 require of a server and a gateway, as bytes and their response.

An outcome is the statuses of the responses, with `close` where the connection then ends. Each row
is a line of docs/http-conformance.md.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.support.http1.client import Received

CHAT = "/v1/chat/completions"
MODELS = "/v1/models"
HEALTH = "/health"


@dataclass(frozen=True, slots=True)
class Row:
    """`envoy` is the outcome of that data plane where it differs.

    `note` explains it, and every deviation. `ours` and `envoys` name a requirement that the
    embedded or the Envoy plane does not meet: the row is then expected to fail there.
    """

    rfc: str
    what: str
    raw: bytes
    embedded: str
    envoy: str = ""
    note: str = ""
    also: Callable[[Received], bool] = lambda _: True
    ours: str = ""
    envoys: str = ""

    def fault(self, plane: str) -> str:
        return self.envoys if plane == "envoy" else self.ours

    def outcome(self, plane: str) -> str:
        return self.envoy if plane == "envoy" and self.envoy else self.embedded


def body(text: str = "Hello") -> bytes:
    return json.dumps({"model": "m", "messages": [{"role": "user", "content": text}]}).encode()


def head(line: str, *headers: str, host: bool = True) -> bytes:
    lines = (line, *(("Host: x",) if host else ()), *headers, "", "")
    return "\r\n".join(lines).encode("latin-1")


def get(*headers: str, target: str = HEALTH, method: str = "GET", host: bool = True) -> bytes:
    return head(f"{method} {target} HTTP/1.1", *headers, host=host)


def old(*headers: str, version: str = "1.0") -> bytes:
    return head(f"GET {HEALTH} HTTP/{version}", *headers, host=False)


def post(*headers: str, text: str = "Hello", target: str = CHAT, version: str = "1.1") -> bytes:
    data = body(text)
    line = f"POST {target} HTTP/{version}"
    return head(line, f"Content-Length: {len(data)}", *headers) + data


def sized(length: str) -> bytes:
    """A request with this Content-Length, whatever it has."""
    return head(f"POST {CHAT} HTTP/1.1", f"Content-Length: {length}") + body()


def chunked(
    raw: bytes | None = None, *headers: str, coding: str = "chunked", version: str = "1.1"
) -> bytes:
    data = raw if raw is not None else chunk() + b"0\r\n\r\n"
    return head(f"POST {CHAT} HTTP/{version}", f"Transfer-Encoding: {coding}", *headers) + data


def chunk(data: bytes = body(), extension: bytes = b"") -> bytes:
    return b"%x%b\r\n%b\r\n" % (len(data), extension, data)


def sent(response: Received) -> dict[str, list[str]]:
    """Headers that reached the server behind the gateway, in lower case."""
    found: dict[str, list[str]] = {}
    for name, value in json.loads(response.body)["headers"]:
        found.setdefault(name, []).append(value)
    return found


def received(response: Received) -> Any:
    """The body that reached the server behind the gateway."""
    return json.loads(json.loads(response.body)["body"])


def is_whole(response: Received) -> bool:
    return bool(received(response) == json.loads(body()))


LENIENT = "Envoy's parser takes it"
NO_OLD = "Envoy responds to HTTP/1.0 with 426; the gateway does not turn `accept_http_10` on"
