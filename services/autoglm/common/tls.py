"""TLS and mTLS from certificate files, re-read when they change.

Servers get credentials that notice new files by themselves: gRPC through its own certificate
callback, HTTP by reloading the context that the server already holds. Channels read the files when
they are made; an owner of channels makes new ones when `Fingerprint` changes.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import grpc

Fingerprint = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files. `ca_file` has client authorities on a server (mTLS), server ones on a client."""

    cert_file: str = ""
    key_file: str = ""
    ca_file: str = ""

    def __bool__(self) -> bool:
        return bool(self.cert_file or self.ca_file)

    def fingerprint(self) -> Fingerprint:
        """Return a value that changes when any of the files does."""
        files = (self.cert_file, self.key_file, self.ca_file)
        return tuple(Path(f).stat().st_mtime_ns for f in files if f)


def _read(path: str) -> bytes | None:
    return Path(path).read_bytes() if path else None


def grpc_server_credentials(files: TlsFiles) -> grpc.ServerCredentials:
    def configuration() -> grpc.ServerCertificateConfiguration:
        pair = (Path(files.key_file).read_bytes(), Path(files.cert_file).read_bytes())
        return grpc.ssl_server_certificate_configuration([pair], _read(files.ca_file))

    loaded = files.fingerprint()

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        nonlocal loaded
        now = files.fingerprint()
        if now == loaded:
            return None
        fresh = configuration()
        loaded = now
        return fresh

    # types-grpcio does not know that the callback may return None for "unchanged".
    fetcher = cast(Callable[[], grpc.ServerCertificateConfiguration], fetch)
    return grpc.dynamic_ssl_server_credentials(configuration(), fetcher, bool(files.ca_file))


def grpc_channel_credentials(files: TlsFiles) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(
        _read(files.ca_file), _read(files.key_file), _read(files.cert_file)
    )


def http_server_context(files: TlsFiles) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    _load_server_files(context, files)
    return context


def http_client_context(files: TlsFiles) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=files.ca_file or None)
    if files.cert_file:
        context.load_cert_chain(files.cert_file, files.key_file)
    return context


async def reload_http_server(
    context: ssl.SSLContext, files: TlsFiles, every_seconds: float
) -> None:
    """Keep a server's context fresh; new connections use the new certificate."""
    loaded = files.fingerprint()
    while True:
        await asyncio.sleep(every_seconds)
        now = files.fingerprint()
        if now != loaded:
            _load_server_files(context, files)
            loaded = now


def _load_server_files(context: ssl.SSLContext, files: TlsFiles) -> None:
    context.load_cert_chain(files.cert_file, files.key_file)
    if files.ca_file:
        context.load_verify_locations(files.ca_file)
        context.verify_mode = ssl.CERT_REQUIRED
