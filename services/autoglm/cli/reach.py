"""Checks that a gRPC server listens at an address, and reports in one sentence why not.

gRPC itself retries for seconds, and reports texts of its C core. Opens one connection, and waits
for its server's first frame; a server that sends nothing passes. Called before a command's first
request.
"""

from __future__ import annotations

import os
import socket
import ssl
from urllib.request import proxy_bypass

import click

from autoglm.common.addresses import split_address
from autoglm.common.errors import NoReadyEndpoint
from autoglm.common.tls import TlsFiles, http_client_context

_CONNECT_SECONDS, _FRAME_SECONDS = 3.0, 1.0
# The client's connection preface of HTTP/2 with empty SETTINGS (RFC 9113, 3.4).
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
_TLS_ALERT = b"\x15\x03"
_START = "start one (`autoglm up -f FILE`, `autoglm gateway`), or give its address with --address"


def check_reach(address: str, tls: TlsFiles) -> None:
    """Return if a server may be used. Raises BadParameter for an address that is not HOST:PORT,
    NoReadyEndpoint with what is wrong and what to do, and OSError where a file cannot be read.

    Other targets of gRPC (`unix:PATH`, `dns:///NAME`) and hosts behind a proxy of the environment
    are not checked.
    """
    if address.startswith("unix:") or "://" in address or ":///" in address:
        return
    try:
        host, port = split_address(address)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--address") from error
    if _is_proxied(host):
        return
    context = _context(tls) if tls else None
    try:
        with socket.create_connection((host, port), timeout=_CONNECT_SECONDS) as plain:
            why = _tls_problem(plain, host, context) if context else _problem(_first_bytes(plain))
    except socket.gaierror as error:
        raise NoReadyEndpoint(f"the host {host!r} is unknown; check --address") from error
    except TimeoutError as error:
        raise NoReadyEndpoint(
            f"{address} does not respond within {_CONNECT_SECONDS:g} s; check the address, and "
            "firewalls and network policies on the way"
        ) from error
    except ConnectionRefusedError as error:
        raise NoReadyEndpoint(f"no gateway or pod listens at {address}; {_START}") from error
    except OSError as error:
        raise NoReadyEndpoint(f"cannot connect to {address}: {error.strerror or error}") from error
    if why:
        raise NoReadyEndpoint(f"{address} {why}")


def _is_proxied(host: str) -> bool:
    """Return whether gRPC connects through a proxy that the environment names."""
    named = any(os.environ.get(name) for name in ("grpc_proxy", "https_proxy", "http_proxy"))
    return named and not proxy_bypass(host)


def _first_bytes(connection: socket.socket) -> bytes | None:
    """Return the server's first bytes; None if it sends none in time."""
    connection.settimeout(_FRAME_SECONDS)
    try:
        connection.sendall(_PREFACE)
        return connection.recv(16)
    except TimeoutError:
        return None
    except (ConnectionResetError, BrokenPipeError):
        return b""


def _problem(first: bytes | None) -> str:
    """Return what is wrong with a server that sends these bytes; empty for gRPC."""
    if first is None or first[3:4] == b"\x04":
        return ""
    if first.startswith(b"HTTP/1."):
        return "is not a gRPC port but one of HTTP/1.1; give the gRPC port, 50051 by default"
    if first.startswith(_TLS_ALERT) or not first:
        return "expects TLS, or is no gRPC port; give its authority with --tls-ca-file"
    return "is no gRPC port; give the gRPC address of a gateway or a pod"


def _context(tls: TlsFiles) -> ssl.SSLContext:
    # Names a missing file, which OpenSSL does not.
    tls.fingerprint()
    context = http_client_context(tls)
    context.set_alpn_protocols(["h2"])
    return context


def _tls_problem(plain: socket.socket, host: str, context: ssl.SSLContext) -> str:
    try:
        with context.wrap_socket(plain, server_hostname=host) as connection:
            return _problem(_first_bytes(connection))
    except ssl.SSLCertVerificationError as error:
        why = error.verify_message.rstrip(".")
        return f"has a certificate that is not accepted ({why}); check --tls-ca-file and the host"
    except ssl.SSLError as error:
        if "CERTIFICATE_REQUIRED" in (error.reason or "") or "HANDSHAKE" in (error.reason or ""):
            return "requires a client certificate; give --tls-cert-file and --tls-key-file"
        return "does not speak TLS; leave out --tls-ca-file and --tls-cert-file"
    except (ConnectionResetError, BrokenPipeError):
        return "does not speak TLS; leave out --tls-ca-file and --tls-cert-file"
