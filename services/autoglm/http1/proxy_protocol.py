"""The PROXY protocol, versions 1 and 2: a proxy's line about its client, before all other bytes.

Pure. https://www.haproxy.org/download/1.8/doc/proxy-protocol.txt
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

_V1 = b"PROXY "
_V2 = b"\r\n\r\n\x00\r\nQUIT\n"
# "The worst case", with CR LF.
_V1_LIMIT = 107
_V2_HEAD = len(_V2) + 4
# Addresses and what may follow them (TLVs); more than any sender needs.
_V2_LIMIT = 4096
MAX_BYTES = _V2_HEAD + _V2_LIMIT
_INET, _INET6 = 0x1, 0x2
_LOCAL, _PROXIED = 0x20, 0x21


class InvalidHeader(ValueError):
    """The bytes begin like a PROXY header and are none."""


@dataclass(frozen=True, slots=True)
class Header:
    """A PROXY header of `size` bytes. `source` is empty where the proxy speaks for itself."""

    size: int
    source: str = ""


NO_HEADER = Header(0)


def read_header(data: bytes) -> Header | None:
    """Return the header with which a connection's bytes begin; None while too few have arrived.

    `NO_HEADER` where they are something else. Raises InvalidHeader.
    """
    if _begins(data, _V1):
        return _read_v1(data) if len(data) >= len(_V1) else None
    if _begins(data, _V2):
        return _read_v2(data) if len(data) >= _V2_HEAD else None
    return NO_HEADER


def _begins(data: bytes, signature: bytes) -> bool:
    return data[: len(signature)] == signature[: len(data)]


def _read_v1(data: bytes) -> Header | None:
    line, end, _ = data[:_V1_LIMIT].partition(b"\r\n")
    if not end:
        if len(data) >= _V1_LIMIT:
            raise InvalidHeader(f"its line has no end within {_V1_LIMIT} bytes")
        return None
    size = len(line) + len(end)
    _, family, *rest = line.split(b" ")
    if family == b"UNKNOWN":
        return Header(size)
    if family not in (b"TCP4", b"TCP6") or len(rest) != 4:
        raise InvalidHeader("its line is not PROXY TCP4|TCP6 SOURCE DESTINATION PORT PORT")
    try:
        source, _ = (ip_address(text.decode("ascii")) for text in rest[:2])
        ports = [int(port) for port in rest[2:] if port.isdigit()]
    except ValueError:
        raise InvalidHeader("its line has an invalid address") from None
    if source.version != int(family[3:]) or len(ports) != 2 or max(ports) > 65535:
        raise InvalidHeader("its line has an invalid address or port")
    return Header(size, str(source))


def _read_v2(data: bytes) -> Header | None:
    command, family, length = struct.unpack_from(">BBH", data, len(_V2))
    if command not in (_LOCAL, _PROXIED):
        raise InvalidHeader(f"version and command are {command:#04x}")
    if length > _V2_LIMIT:
        raise InvalidHeader(f"it has {length} bytes, and {_V2_LIMIT} is the limit")
    size = _V2_HEAD + length
    if len(data) < size:
        return None
    if command == _LOCAL:
        return Header(size)
    rest = data[_V2_HEAD:size]
    if family >> 4 == _INET and length >= 12:
        return Header(size, str(IPv4Address(rest[:4])))
    if family >> 4 == _INET6 and length >= 36:
        return Header(size, str(IPv6Address(rest[:16])))
    if family >> 4 in (_INET, _INET6):
        raise InvalidHeader(f"its addresses have only {length} bytes")
    # A Unix socket, or unspecified: "the receiver should use the real connection's addresses".
    return Header(size)
