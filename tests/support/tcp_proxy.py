"""A TCP proxy that misbehaves on request, for tests of broken networks.

It resets, goes deaf, delays, stops half-way.

with TcpProxy("127.0.0.1:50051") as proxy:
    ... connect to proxy.address ...
    proxy.reset()
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self

_READ_BYTES = 65536
# Close with a reset instead of an orderly end (SO_LINGER with a time of 0).
_RESET = struct.pack("ii", 1, 0)


@dataclass
class TcpProxy:
    """Passes bytes to `target` (HOST:PORT) and back, until another behaviour is set."""

    target: str
    delay_seconds: float = 0.0
    """How long each piece is held before it is passed on."""
    most_bytes: int | None = None
    """So much of what each client sends is passed on, and then nothing more."""
    _hears: threading.Event = field(default_factory=threading.Event)
    _closed: threading.Event = field(default_factory=threading.Event)
    _open: set[socket.socket] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __enter__(self) -> Self:
        self._hears.set()
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self._spawn(self._accept)
        return self

    def __exit__(self, *error: object) -> None:
        self._closed.set()
        self._hears.set()
        # Wakes `accept`, which closing alone does not.
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self.reset()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def reset(self) -> None:
        """Break all connections; new ones work."""
        with self._lock:
            broken, self._open = self._open, set()
        for connection in broken:
            with contextlib.suppress(OSError):
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()

    def go_deaf(self) -> None:
        """Connections stay open, and new ones are taken, but nothing passes any more."""
        self._hears.clear()

    def hear(self) -> None:
        self._hears.set()

    def _accept(self) -> None:
        while not self._closed.is_set():
            try:
                near, _ = self._server.accept()
            except OSError:
                return
            self._join(near)

    def _join(self, near: socket.socket) -> None:
        host, _, port = self.target.rpartition(":")
        try:
            far = socket.create_connection((host, int(port)), timeout=5)
        except OSError:
            near.close()
            return
        far.settimeout(None)
        with self._lock:
            self._open |= {near, far}
        self._spawn(self._pass, near, far, self.most_bytes)
        self._spawn(self._pass, far, near, None)

    def _pass(self, source: socket.socket, sink: socket.socket, most: int | None) -> None:
        passed = 0
        with contextlib.suppress(OSError):
            while data := source.recv(_READ_BYTES):
                self._hears.wait()
                if self.delay_seconds:
                    self._closed.wait(self.delay_seconds)
                if most is not None and (passed := passed + len(data)) > most:
                    self._closed.wait()
                sink.sendall(data)
        with self._lock:
            self._open -= {source, sink}
        for connection in (source, sink):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()

    def _spawn(self, run: Callable[..., None], *arguments: object) -> None:
        threading.Thread(target=run, args=arguments, daemon=True).start()
