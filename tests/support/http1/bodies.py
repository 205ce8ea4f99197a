"""Rows about the framing of bodies."""

from __future__ import annotations

from tests.support.http1.row import (
    LENIENT,
    NO_OLD,
    Row,
    body,
    chunk,
    chunked,
    get,
    is_whole,
    post,
    sent,
    sized,
)

BODIES = (
    Row("9112 7.1", "a chunked body", chunked(), "200", also=is_whole),
    Row("9112 7", "the coding in other case", chunked(coding="Chunked"), "200", also=is_whole),
    Row(
        *(
            "9112 7.1.1",
            "chunk extensions are ignored",
            chunked(chunk(extension=b';a=b;c="d"') + b"0;e\r\n\r\n"),
            "200",
        ),
        also=is_whole,
    ),
    Row(
        *(
            "9112 7.1",
            "a chunk's size with leading zeros",
            chunked(b"00" + chunk() + b"000\r\n\r\n"),
        ),
        "200",
        also=is_whole,
    ),
    Row(
        *(
            "9110 6.5.1",
            "a trailer is no header",
            chunked(chunk() + b"0\r\nX-T: 1\r\n\r\n", "Trailer: X-T"),
            "200",
        ),
        also=lambda r: is_whole(r) and "x-t" not in sent(r),
    ),
    Row(
        *(
            "9110 6.5.1",
            "a trailer that may not be one, Content-Length",
            chunked(chunk() + b"0\r\nContent-Length: 5\r\n\r\n"),
            "400 close",
            "200",
        ),
        "to be ignored or merged; llhttp rejects it. Envoy drops it",
    ),
    Row("9112 7.1", "a chunk's size that is no number", chunked(b"zz\r\n"), "400 close"),
    Row("9112 7.1", "a chunk's size of 0x5", chunked(b"0x5\r\nhello\r\n0\r\n\r\n"), "400 close"),
    Row("9112 7.1", "a chunk's size of -1", chunked(b"-1\r\n"), "400 close"),
    Row("9112 7.1", "a chunk's size of 17 digits", chunked(b"f" * 17 + b"\r\n"), "400 close"),
    Row(
        "9112 7.1",
        "a bare LF behind a chunk's size",
        chunked(b"5\nhello\r\n0\r\n\r\n"),
        "400 close",
    ),
    Row(
        "9112 7.1",
        "a chunk that is longer than its size",
        chunked(b"2\r\nabXX0\r\n\r\n"),
        "400 close",
    ),
    Row(
        *(
            "9112 7.1",
            "a space behind a chunk's size",
            chunked(chunk(extension=b" ") + b"0\r\n\r\n"),
        ),
        *("400 close", "200", "no such space is allowed before an extension's end. " + LENIENT),
    ),
    Row("9112 6.1", "gzip, chunked", chunked(coding="gzip, chunked"), "501 close"),
    Row(
        *(
            "9112 6.3",
            "chunked is not last",
            chunked(coding="chunked, gzip"),
            "400 close",
            "501 close",
        ),
        "Envoy has one status for all codings but chunked",
    ),
    Row(
        *(
            "9112 7.1",
            "chunked twice",
            chunked(coding="chunked, chunked"),
            "400 close",
            "501 close",
        ),
        "as above",
    ),
    Row("9112 6.1", "Transfer-Encoding: identity", chunked(coding="identity"), "501 close"),
    Row("9112 6.1", "an unknown coding", chunked(coding="xchunked"), "501 close"),
    Row(
        "9112 6.3",
        "both Transfer-Encoding and Content-Length",
        post("Transfer-Encoding: chunked"),
        "400 close",
    ),
    Row(
        *(
            "9112 6.1",
            "Transfer-Encoding in HTTP/1.0",
            chunked(version="1.0"),
            "400 close",
            "426 close",
            NO_OLD,
        ),
    ),
    Row("9110 8.6", "Content-Length twice, and different", post("Content-Length: 9"), "400 close"),
    Row(
        *(
            "9110 8.6",
            "Content-Length twice, and the same",
            post(f"Content-Length: {len(body())}"),
            "400 close",
            "",
            "may be taken as one; rejecting it is the safer choice",
        ),
    ),
    Row(
        *(
            "9110 8.6",
            "a list of equal lengths",
            sized(f"{len(body())}, {len(body())}"),
            "400 close",
        ),
        note="as above",
    ),
    Row("9110 8.6", "Content-Length: -1", sized("-1"), "400 close"),
    Row("9110 8.6", "Content-Length: +5", sized("+5"), "400 close"),
    Row("9110 8.6", "Content-Length: 0x10", sized("0x10"), "400 close"),
    Row("9110 8.6", "a Content-Length of 20 digits", sized("9" * 20), "400 close"),
    Row("9110 8.6", "an empty Content-Length", sized(""), "400 close"),
    Row("9110 15.5.14", "a length over --max-body-bytes", sized("99999999"), "413 close"),
    Row("9110 9.3.1", "GET with a body", get("Content-Length: 5") + b"hello", "200"),
    Row(
        *(
            "9110 15.5.16",
            "a Content-Encoding that is not supported",
            post("Content-Encoding: snappy"),
            "400",
            "",
            "415 is possible; APIs of models have 400",
        ),
    ),
)
