"""Serves a handler of http.server on loopback, for stand-ins of services that the internet has."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def part_of(data: bytes, wanted: str) -> tuple[bytes, str]:
    """Return the bytes that a Range header requests, and the Content-Range; all and "" without."""
    if not (found := re.fullmatch(r"bytes=(\d+)-(\d*)", wanted)):
        return data, ""
    first = int(found[1])
    last = min(int(found[2]), len(data) - 1) if found[2] else len(data) - 1
    return data[first : last + 1], f"bytes {first}-{last}/{len(data)}"


class QuietHandler(BaseHTTPRequestHandler):
    """Keeps connections, and logs nothing."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: object) -> None:
        """Keep quiet."""


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler], host: str = "127.0.0.1") -> Iterator[str]:
    """Yield the URL."""
    server = ThreadingHTTPServer((host, 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://{host}:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
