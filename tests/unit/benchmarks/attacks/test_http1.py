"""The bytes of attacks over HTTP/1.1, and the reader of a server's responses."""

from __future__ import annotations

import json

import pytest
from benchmarks.attacks import http1


def test_each_form_of_smuggling_breaks_exactly_what_it_names() -> None:
    forms = dict(http1.smuggling("key"))
    assert b"content-length" in forms["CL and TE"] and b"transfer-encoding" in forms["CL and TE"]
    assert forms["two CL"].count(b"content-length: ") == 2
    assert b"\r\n b\r\n" in forms["obs-fold"]
    assert b"a\rb" in forms["bare CR"]
    head, _, _ = forms["bare LF"].partition(b"\n\n")
    assert b"\r" not in head
    assert forms["two Hosts"].count(b"\r\nhost: ") == 3, "one more is the second request's"
    assert b"host: localhost" not in forms["no Host"]


def test_forms_have_names_of_their_own() -> None:
    for forms in (http1.smuggling, http1.oversize):
        names = [name for name, _ in forms("key")]
        assert len(names) == len(set(names))


def test_heads_grow_to_a_megabyte() -> None:
    sizes = [len(data) for _, data in http1.oversize("")]
    assert min(sizes) < 8_192 and max(sizes) > 1_000_000


def test_the_whole_body_of_a_chat_is_sent_with_its_length() -> None:
    (data,) = http1.never_read("key")
    head, _, body = data.partition(b"\r\n\r\n")
    assert f"content-length: {len(body)}".encode() in head
    assert json.loads(body)["stream"] is True


@pytest.mark.parametrize(
    ("writes", "count", "of"),
    [
        (http1.one_byte_chunks, http1.CHUNKS, b"1\r\nx\r\n"),
        (http1.slow_head, http1.SLOW_BYTES, b"y"),
        (http1.slow_body, http1.SLOW_BYTES, b" "),
        (http1.pipelining, http1.PIPELINED, b"GET "),
    ],
)
def test_an_attack_is_bounded_in_count(writes: http1.Writes, count: int, of: bytes) -> None:
    sent = list(writes("key"))
    assert sum(data.count(of) for data in sent if not data.startswith(b"POST")) == count


def test_a_head_that_never_ends_does_not_end() -> None:
    assert b"\r\n\r\n" not in b"".join(http1.slow_head(""))


def test_the_reader_yields_the_status_of_each_response_from_any_pieces() -> None:
    data = b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 401 Unauthorized\r\n\r\n{}HTTP/1.0 431 X\r\n\r\n"
    for size in (1, 5, 11, 12, len(data)):
        reader = http1.Reader()
        pieces = (data[at : at + size] for at in range(0, len(data), size))
        assert [s for piece in pieces for s in reader.feed(piece)] == ["200", "401", "431"]
