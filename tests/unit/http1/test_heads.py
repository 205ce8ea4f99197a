"""Heads of requests, and origins of base URLs."""

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm.http1.heads import origin_of, request_head

TEXT = st.text("".join(map(chr, (*range(32, 127), *range(160, 256)))), max_size=20)


@pytest.mark.parametrize(
    ("base", "host", "port", "is_tls", "authority", "path"),
    [
        ("http://10.0.0.1:8000", "10.0.0.1", 8000, False, b"10.0.0.1:8000", ""),
        ("https://api.example/v1/", "api.example", 443, True, b"api.example", "/v1"),
        ("http://[::1]:80", "::1", 80, False, b"[::1]:80", ""),
        ("http://user:secret@h", "h", 80, False, b"h", ""),
    ],
)
def test_an_origin_has_the_parts_of_its_url(
    base: str, host: str, port: int, is_tls: bool, authority: bytes, path: str
) -> None:
    origin = origin_of(base)

    assert (origin.host, origin.port, origin.is_tls) == (host, port, is_tls)
    assert (origin.authority, origin.path) == (authority, path)


@pytest.mark.parametrize("base", ["", "ftp://h", "http://", "10.0.0.1:8000"])
def test_what_is_no_base_url_is_rejected_with_its_text(base: str) -> None:
    with pytest.raises(ValueError, match="is not a base URL"):
        origin_of(base)


@pytest.mark.parametrize("bad", ["a\r\nb: c", "a\nb", "a\rb"])
def test_a_line_break_never_begins_another_header(bad: str) -> None:
    for target, fields in ((f"/{bad}", []), ("/", [("x", bad)]), ("/", [(bad, "x")])):
        with pytest.raises(ValueError, match="line break"):
            request_head("POST", target, b"h", fields, 0)


@given(st.lists(st.tuples(st.from_regex(r"\Ax-[a-z]{1,8}\Z"), TEXT), max_size=5))
def test_a_parser_reads_back_what_was_written(fields: list[tuple[str, str]]) -> None:
    seen: list[tuple[bytes, bytes]] = []

    class Reader:
        def on_header(self, name: bytes, value: bytes) -> None:
            seen.append((name, value.rstrip(b" \t")))

    parser = httptools.HttpRequestParser(Reader())
    parser.feed_data(request_head("POST", "/v1?a=b", b"h:1", fields, 0))

    sent = [(name.encode(), value.strip(" \t").encode()) for name, value in fields]
    assert seen == [*sent, (b"content-length", b"0"), (b"host", b"h:1")]
    assert parser.get_method() == b"POST"


def test_a_get_without_a_body_announces_none() -> None:
    assert request_head("GET", "/", b"h", [], 0) == b"GET / HTTP/1.1\r\nhost: h\r\n\r\n"
