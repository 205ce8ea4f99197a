"""What is read from a request's headers and body, without a server."""

from __future__ import annotations

import gzip
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm.common.addresses import TrustedProxies
from autoglm.common.errors import InvalidRequest
from autoglm.gateway.edges.cors import Cors
from autoglm.gateway.edges.rest_request import (
    Bounds,
    HttpRequest,
    forwarded_headers,
    gunzip,
    plain_size,
    request_id_of,
    request_of,
    timeout_of,
    unquoted,
)
from autoglm.gateway.proxy.http_upstream import relayed_headers
from autoglm.http1.exchange import Exchange
from autoglm.http1.heads import Fields

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
    headers = {
        "connection": "keep-alive, X-Hop",
        "x-hop": "1",
        "transfer-encoding": "chunked",
        "x-request-id": "theirs",
        "x-kept": "2",
        "authorization": "Bearer k",
    }
    assert forwarded_headers(headers) == {"x-kept": "2", "authorization": "Bearer k"}
    fields = [(name.encode(), value.encode()) for name, value in headers.items()]
    assert relayed_headers(fields) == {"x-kept": "2", "authorization": "Bearer k"}


def test_the_callers_own_salt_stays_behind() -> None:
    headers = {"x-autoglm-prefix-salt": "0000000000000007", "x-kept": "2"}
    assert forwarded_headers(headers) == {"x-kept": "2"}


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


class Connection:
    """A connection's address and kind."""

    def __init__(self, peer: str = "192.0.2.1", *, is_local: bool = False) -> None:
        self.peer, self.is_local = peer, is_local


def http_request(target: bytes, fields: Fields = [], **connection: Any) -> HttpRequest:  # noqa: B006
    wire: Any = Connection(**connection)
    return HttpRequest(Exchange(wire, "GET", target, fields), Cors())


@pytest.mark.parametrize(
    ("target", "sent", "path"),
    [
        (b"/a/b?c=d", "/a/b?c=d", "/a/b"),
        (b"/a/?c=/", "/a?c=/", "/a"),
        (b"/", "/", "/"),
        (b"/%61%20?%61", "/%61%20?%61", "/a "),
        (b"http://h/a?b", "/a?b", "/a"),
        (b"HTTPS://h:1?b", "/?b", "/"),
        (b"http://h", "/", "/"),
        (b"/a?b#c", "/a?b", "/a"),
        (b"/a://b", "/a://b", "/a://b"),
        (b"*", "*", "*"),
    ],
)
def test_a_target_is_a_path_as_it_was_sent_and_decoded(target: bytes, sent: str, path: str) -> None:
    http = http_request(target)
    assert (http.target, http.path) == (sent, path)


def test_an_encoded_slash_separates_nothing_in_a_route() -> None:
    http = http_request(b"/m/a%2Fb%252Fc/%69nfer")
    assert http.routed == "/m/a%2Fb%252Fc/infer"
    assert http.path == unquoted(http.routed) == "/m/a/b%2Fc/infer"


def test_the_first_parameter_of_a_query_counts() -> None:
    http = http_request(b"/t?model=a%20b&x&model=c")
    assert (http.query("model"), http.query("x"), http.query("y")) == ("a b", "", "")


def test_every_credential_is_seen_and_repeated_headers_are_joined() -> None:
    fields = [(b"authorization", b"Bearer a"), (b"x-api-key", b"k"), (b"authorization", b"b")]
    fields += [(b"anthropic-beta", b"one"), (b"anthropic-beta", b"two")]
    request = request_of(http_request(b"/", fields), BOUNDS)
    assert request.credentials == (
        ("authorization", "Bearer a"),
        ("x-api-key", "k"),
        ("authorization", "b"),
    )
    assert request.headers["anthropic-beta"] == "one, two"


def test_only_a_local_connection_names_its_peer() -> None:
    fields = [(b"x-autoglm-peer", b"203.0.113.9")]
    assert request_of(http_request(b"/", fields), BOUNDS).peer == "192.0.2.1"
    assert request_of(http_request(b"/", fields, peer=""), BOUNDS).peer == ""
    local = http_request(b"/", fields, peer="", is_local=True)
    assert request_of(local, BOUNDS).peer == "203.0.113.9"


def test_a_trusted_proxy_names_the_client_and_no_other_peer_does() -> None:
    bounds = replace(BOUNDS, proxies=TrustedProxies(["10.0.0.0/8"]))
    fields = [(b"x-forwarded-for", b"198.51.100.1"), (b"x-forwarded-for", b"203.0.113.9")]

    def peer(fields: Fields = fields, **connection: Any) -> str:
        return request_of(http_request(b"/", fields, **connection), bounds).peer

    assert peer(peer="10.0.0.1") == "203.0.113.9"
    assert peer(peer="192.0.2.1") == "192.0.2.1"
    assert request_of(http_request(b"/", fields, peer="10.0.0.1"), BOUNDS).peer == "10.0.0.1"
    proxied = [*fields, (b"x-autoglm-peer", b"192.0.2.7, 10.0.0.1")]
    assert peer(proxied, peer="", is_local=True) == "192.0.2.7"
