"""PROXY headers of both versions: the client's address, or an error; never more than was sent."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm.http1.proxy_protocol import (
    MAX_BYTES,
    NO_HEADER,
    Header,
    InvalidHeader,
    read_header,
)

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
GET = b"GET / HTTP/1.1\r\nhost: h\r\n\r\n"


def v2(source: str, destination: str, more: bytes = b"", *, command: int = 0x21) -> bytes:
    """Return a header of version 2 for a TCP connection."""
    first, second = ip_address(source), ip_address(destination)
    body = first.packed + second.packed + struct.pack(">HH", 4711, 80) + more
    family = 0x11 if first.version == 4 else 0x21
    return SIGNATURE + struct.pack(">BBH", command, family, len(body)) + body


V1 = b"PROXY TCP4 192.0.2.1 198.51.100.2 4711 80\r\n"
V1_IPV6 = b"PROXY TCP6 2001:db8::1 2001:db8::2 4711 80\r\n"
VALID = [
    (V1, "192.0.2.1"),
    (V1_IPV6, "2001:db8::1"),
    (b"PROXY UNKNOWN\r\n", ""),
    (b"PROXY UNKNOWN 192.0.2.1 whatever\r\n", ""),
    (v2("192.0.2.1", "198.51.100.2"), "192.0.2.1"),
    (v2("2001:db8::1", "2001:db8::2"), "2001:db8::1"),
    (v2("192.0.2.1", "198.51.100.2", b"\x03\x00\x04abcd"), "192.0.2.1"),
    (v2("192.0.2.1", "198.51.100.2", command=0x20), ""),
    (SIGNATURE + struct.pack(">BBH", 0x21, 0x31, 216) + bytes(216), ""),
    (SIGNATURE + struct.pack(">BBH", 0x20, 0x00, 0), ""),
]


@pytest.mark.parametrize(("header", "source"), VALID)
def test_a_header_names_the_client_however_it_is_cut(header: bytes, source: str) -> None:
    for size in range(len(header)):
        assert read_header(header[:size]) is None or not size
    assert read_header(header) == read_header(header + GET) == Header(len(header), source)


@pytest.mark.parametrize("data", [GET, b"POST / HTTP/1.1\r\n", b"\x16\x03\x01", b"PRI * HTTP/2.0"])
def test_bytes_that_are_something_else_are_none(data: bytes) -> None:
    assert read_header(data) is NO_HEADER


@pytest.mark.parametrize(
    "header",
    [
        b"PROXY TCP4 192.0.2.1 198.51.100.2 4711\r\n",
        b"PROXY TCP4 192.0.2.1 198.51.100.2 4711 80 1\r\n",
        b"PROXY TCP4 192.0.2.1 198.51.100.2 4711 65536\r\n",
        b"PROXY TCP4 192.0.2.1 198.51.100.2 -1 80\r\n",
        b"PROXY TCP4 2001:db8::1 2001:db8::2 4711 80\r\n",
        b"PROXY TCP4 example.com 198.51.100.2 4711 80\r\n",
        b"PROXY TCP6 192.0.2.1 198.51.100.2 4711 80\r\n",
        b"PROXY TCP4  192.0.2.1 198.51.100.2 80\r\n",
        b"PROXY SCTP 192.0.2.1 198.51.100.2 4711 80\r\n",
        b"PROXY \xff\xff\r\n",
        b"PROXY " + 200 * b"x",
        v2("192.0.2.1", "198.51.100.2", command=0x22),
        v2("192.0.2.1", "198.51.100.2", command=0x11),
        SIGNATURE + struct.pack(">BBH", 0x21, 0x11, 8) + bytes(8),
        SIGNATURE + struct.pack(">BBH", 0x21, 0x21, 12) + bytes(12),
        SIGNATURE + struct.pack(">BBH", 0x21, 0x11, 65535),
    ],
)
def test_an_invalid_header_is_an_error(header: bytes) -> None:
    with pytest.raises(InvalidHeader):
        read_header(header)


ADDRESSES = st.one_of(
    st.tuples(st.ip_addresses(v=4), st.ip_addresses(v=4)),
    st.tuples(st.ip_addresses(v=6), st.ip_addresses(v=6)),
)


@given(ADDRESSES, st.binary(max_size=40))
def test_every_address_is_read_from_both_versions(
    addresses: tuple[IPv4Address | IPv6Address, IPv4Address | IPv6Address], rest: bytes
) -> None:
    source, destination = map(str, addresses)
    family = addresses[0].version
    line = f"PROXY TCP{family} {source} {destination} 1 65535\r\n".encode()
    for header in (line, v2(source, destination)):
        assert read_header(header + rest) == Header(len(header), source)


@given(
    st.one_of(
        st.binary(max_size=300),
        st.binary(max_size=300).map(lambda rest: b"PROXY " + rest),
        st.binary(max_size=300).map(lambda rest: SIGNATURE + rest),
    )
)
def test_any_bytes_are_a_header_an_error_or_none_within_the_bound(data: bytes) -> None:
    try:
        header = read_header(data)
    except InvalidHeader:
        return
    if header is None:
        assert len(data) < MAX_BYTES
    else:
        assert header.size <= len(data)
        assert not header.source or ip_address(header.source)


@given(st.sampled_from([header for header, _ in VALID]), st.data())
def test_a_changed_byte_never_escapes_the_errors(header: bytes, data: st.DataObject) -> None:
    changed = bytearray(header)
    for _ in range(data.draw(st.integers(1, 3))):
        changed[data.draw(st.integers(0, len(header) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = read_header(bytes(changed) + GET)
    except InvalidHeader:
        return
    assert found is None or found.size <= len(header) + len(GET)
