"""What is read from a request's headers and body, without a server."""

from __future__ import annotations

import gzip

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from autoglm.common.errors import InvalidRequest
from autoglm.gateway.edges.rest_request import (
    Bounds,
    forwarded_headers,
    gunzip,
    plain_size,
    request_id_of,
    timeout_of,
)
from autoglm.gateway.proxy.http_upstream import relayed_headers

BOUNDS = Bounds(max_body_bytes=100, default_timeout_seconds=5.0, max_timeout_seconds=60.0)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, 5.0),
        ({"x-request-timeout-seconds": "0.5"}, 0.5),
        ({"x-request-timeout-seconds": "1e3"}, 60.0),
    ],
)
def test_a_timeout_is_the_callers_up_to_the_longest(
    headers: dict[str, str], seconds: float
) -> None:
    assert timeout_of(headers, BOUNDS) == seconds


@pytest.mark.parametrize("given_id", ["", "a b", "x" * 129, "ümlaut"])
def test_an_id_that_cannot_be_passed_on_is_replaced(given_id: str) -> None:
    made = request_id_of({"x-request-id": given_id})
    assert len(made) == 32


def test_a_good_id_is_kept() -> None:
    assert request_id_of({"x-request-id": "trace/42"}) == "trace/42"


def test_headers_of_the_connection_stay_behind() -> None:
    headers = CIMultiDict(
        [
            ("Connection", "keep-alive, X-Hop"),
            ("X-Hop", "1"),
            ("Transfer-Encoding", "chunked"),
            ("X-Request-Id", "theirs"),
            ("X-Kept", "2"),
            ("Authorization", "Bearer k"),
        ]
    )
    assert forwarded_headers(headers) == {"x-kept": "2", "authorization": "Bearer k"}
    fields = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    assert relayed_headers(fields) == {"x-kept": "2", "authorization": "Bearer k"}


def test_the_callers_own_salt_stays_behind() -> None:
    assert forwarded_headers({"X-Autoglm-Prefix-Salt": "0000000000000007", "X-Kept": "2"}) == {
        "x-kept": "2"
    }


@given(st.binary(max_size=200))
def test_gunzip_gives_back_what_was_packed(plain: bytes) -> None:
    packed = gzip.compress(plain)
    assert plain_size(packed) == len(plain)
    assert gunzip(packed) == plain


@given(st.binary(min_size=1, max_size=200), st.integers(0, 400))
def test_stream_that_lies_about_its_length_is_refused(plain: bytes, said: int) -> None:
    packed = gzip.compress(plain)[:-4] + said.to_bytes(4, "little")
    if said == len(plain):
        assert gunzip(packed) == plain
    else:
        with pytest.raises(InvalidRequest):
            gunzip(packed)


@given(st.binary(max_size=60))
def test_other_bytes_are_an_invalid_request(body: bytes) -> None:
    with pytest.raises(InvalidRequest):
        gunzip(b"\x00" + body)
