"""Addresses: HOST:PORT, URLs with passwords, and the address of a client behind proxies.

A proxy that is trusted reports its client's address, by `X-Forwarded-For` or the PROXY protocol.
What anybody else reports is never used. Pure, so that core installs can use it.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network

from autoglm.common.lru import LruCache

FORWARDED_FOR = "x-forwarded-for"
_USER_INFO = re.compile(r"//[^/@\s]*@")
# Of proxies in a row, and of addresses whose verdict is remembered.
_MAX_HOPS = 16
_MAX_REMEMBERED = 4096
_HOST_BITS = 64
# What the kernel says where it has no addresses of a family.
_NO_FAMILY = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)


def split_address(address: str) -> tuple[str, int]:
    """Return host and port of `HOST:PORT` or `[IPV6]:PORT`. Raises ValueError."""
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"{address!r} is not HOST:PORT, such as 127.0.0.1:50051")
    return host.strip("[]"), int(port)


def cannot_listen(address: str, error: OSError) -> str:
    """Return why a server cannot listen on `HOST:PORT`, with the family of an IP address."""
    host, port = split_address(address)
    parsed = _parsed(host)
    family = f" (IPv{6 if ':' in host else 4})" if parsed else ""
    why = f"cannot listen on {address}{family}: {error.strerror or error}"
    if ":" in host and error.errno in _NO_FAMILY:
        every = "0.0.0.0" if host == "::" else "127.0.0.1"
        why += f"; if this machine or container has no IPv6, use {every}:{port}"
    return why


def without_user_info(text: str) -> str:
    """Return the text with user and password of each URL in it replaced, as in `//***@host`."""
    return _USER_INFO.sub("//***@", text)


@lru_cache(_MAX_REMEMBERED)
def network_of(address: str) -> str:
    """Return what counts as one client: an IPv4 address, or the /64 of an IPv6 address.

    One client usually has all of a /64. What is no IP address counts as it is.
    """
    parsed = _parsed(address)
    if isinstance(parsed, IPv6Address):
        return str(IPv6Network((int(parsed) >> _HOST_BITS << _HOST_BITS, _HOST_BITS)))
    return str(parsed) if parsed else address


class TrustedProxies:
    """The networks whose proxies are believed. Without any, every peer is a client."""

    def __init__(self, networks: Iterable[str] = ()) -> None:
        """Raises ValueError with the value that is no network."""
        self._networks = tuple(ip_network(network) for network in networks)
        self._remembered: LruCache[str, bool] = LruCache(_MAX_REMEMBERED)

    def __bool__(self) -> bool:
        return bool(self._networks)

    def trusts(self, address: str) -> bool:
        """Return whether the address is that of a trusted proxy."""
        if not self._networks:
            return False
        known = self._remembered.get(address)
        if known is None:
            parsed = _parsed(address)
            known = parsed is not None and any(
                parsed.version == network.version and parsed in network
                for network in self._networks
            )
            self._remembered.put(address, known)
        return known

    def client_of(self, peer: str, forwarded: str) -> str:
        """Return the client's address: the rightmost in `forwarded` that is no trusted proxy's.

        `peer` is the connection's other end, behind the client that a PROXY header named, if any;
        `forwarded` the value of X-Forwarded-For, to which each proxy appends the address that it
        was connected from. Where all are proxies, or one reports no address, the last proxy that
        was reached.
        """
        named, _, peer = peer.rpartition(", ")
        reported = ",".join(filter(None, (forwarded, named)))
        for _ in range(_MAX_HOPS):
            if not reported or not self.trusts(peer):
                break
            reported, _, last = reported.rpartition(",")
            address = _without_port(last.strip())
            if _parsed(address) is None:
                break
            peer = address
        return peer


NO_PROXIES = TrustedProxies()


def _without_port(address: str) -> str:
    """Return the address of `192.0.2.1:80`, `[2001:db8::1]:80` or either without a port."""
    if address.startswith("["):
        return address[1:].partition("]")[0]
    return address.partition(":")[0] if address.count(":") == 1 else address


def _parsed(address: str) -> IPv4Address | IPv6Address | None:
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return None
    if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped:
        return parsed.ipv4_mapped
    return parsed
