"""The client's address behind proxies: only what trusted ones report counts."""

from __future__ import annotations

import errno
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm.common.addresses import TrustedProxies, cannot_listen, network_of

PROXIES = TrustedProxies(["10.0.0.0/8", "2001:db8:1::/48", "192.0.2.1/32"])
CLIENT, SPOOFED = "203.0.113.5", "198.51.100.1"


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        (CLIENT, "", CLIENT),
        (CLIENT, SPOOFED, CLIENT),
        (CLIENT, "10.0.0.1", CLIENT),
        ("10.0.0.1", CLIENT, CLIENT),
        ("10.0.0.1", f"{SPOOFED}, {CLIENT}", CLIENT),
        ("10.0.0.1", f"{SPOOFED}, {CLIENT}, 10.0.0.2", CLIENT),
        ("10.0.0.1", f" {SPOOFED},{CLIENT} , 10.0.0.2,192.0.2.1 ", CLIENT),
        ("10.0.0.1", f"10.0.0.9, {CLIENT}", CLIENT),
        ("192.0.2.1", CLIENT, CLIENT),
        ("192.0.2.2", CLIENT, "192.0.2.2"),
        ("2001:db8:1::7", "2001:db8:2::1", "2001:db8:2::1"),
        ("::ffff:10.0.0.1", CLIENT, CLIENT),
        ("10.0.0.1", f"{CLIENT}:4711", CLIENT),
        ("10.0.0.1", "[2001:db8:2::1]:4711", "2001:db8:2::1"),
        ("10.0.0.1", "[2001:db8:2::1]", "2001:db8:2::1"),
        # The proxy reports no address: it is not known who the client is.
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", "unknown", "10.0.0.1"),
        ("10.0.0.1", f"{CLIENT}, _hidden", "10.0.0.1"),
        ("10.0.0.1", f"{CLIENT},", "10.0.0.1"),
        # All are proxies.
        ("10.0.0.1", "10.0.0.3, 10.0.0.2", "10.0.0.3"),
        # Behind what a PROXY header named.
        (f"{CLIENT}, 10.0.0.1", "", CLIENT),
        (f"{CLIENT}, 10.0.0.1", SPOOFED, CLIENT),
        ("10.0.0.2, 10.0.0.1", CLIENT, CLIENT),
        (f"{SPOOFED}, {CLIENT}", "", CLIENT),
        ("", CLIENT, ""),
    ],
)
def test_the_client_is_the_rightmost_address_that_is_no_proxys(
    peer: str, forwarded: str, client: str
) -> None:
    assert PROXIES.client_of(peer, forwarded) == client


ADDRESSES = st.one_of(
    st.ip_addresses(v=4).map(str), st.ip_addresses(v=6).map(str), st.text(max_size=20)
)


@given(
    st.lists(ADDRESSES, max_size=30), st.ip_addresses().map(str).filter(lambda a: a[0] not in "1:2")
)
def test_what_a_client_claims_never_matters(claims: list[str], client: str) -> None:
    assert PROXIES.client_of(client, ", ".join(claims)) == client
    assert PROXIES.client_of("10.0.0.1", ", ".join((*claims, client))) == client


@given(st.text(), st.text())
def test_any_text_is_read(peer: str, forwarded: str) -> None:
    assert isinstance(PROXIES.client_of(peer, forwarded), str)
    assert isinstance(network_of(peer), str)


def test_a_long_chain_of_proxies_is_not_followed_for_ever() -> None:
    assert PROXIES.client_of("10.0.0.1", CLIENT + ", 10.0.0.2" * 10_000) == "10.0.0.2"


def test_without_proxies_every_peer_is_a_client() -> None:
    assert not TrustedProxies() and PROXIES
    assert TrustedProxies().client_of("10.0.0.1", CLIENT) == "10.0.0.1"


@pytest.mark.parametrize("network", ["10.0.0.1/8", "10.0.0.0/33", "example.com", ""])
def test_a_value_that_is_no_network_is_rejected(network: str) -> None:
    with pytest.raises(ValueError, match="."):
        TrustedProxies([network])


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("no address", "no address"),
    ],
)
def test_an_ipv6_network_counts_as_one_client(address: str, network: str) -> None:
    assert network_of(address) == network


@pytest.mark.parametrize(
    ("address", "number", "expected"),
    [
        ("127.0.0.1:80", errno.EADDRINUSE, "127.0.0.1:80 (IPv4): Address already in use"),
        ("[::1]:80", errno.EADDRINUSE, "[::1]:80 (IPv6): Address already in use"),
        ("node:80", errno.EADDRINUSE, "node:80: Address already in use"),
        (
            "[::]:80",
            errno.EAFNOSUPPORT,
            "[::]:80 (IPv6): Address family not supported by protocol; if this machine or "
            "container has no IPv6, use 0.0.0.0:80",
        ),
        (
            "[::1]:80",
            errno.EADDRNOTAVAIL,
            "[::1]:80 (IPv6): Cannot assign requested address; if this machine or container has "
            "no IPv6, use 127.0.0.1:80",
        ),
    ],
)
def test_an_address_that_cannot_be_used_is_named_with_its_family(
    address: str, number: int, expected: str
) -> None:
    error = OSError(number, os.strerror(number))
    assert cannot_listen(address, error) == f"cannot listen on {expected}"
