"""An S3 on loopback that clients accept: lists and gets objects of one bucket, with ranges."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

from tests.support.http_stand_in import QuietHandler, part_of, serving

_TIME = "2026-01-01T00:00:00.000Z"
_HTTP_TIME = "Thu, 01 Jan 2026 00:00:00 GMT"


@dataclass
class Store:
    """The objects of the bucket `bucket`, and the requests that came."""

    objects: Mapping[str, bytes]
    url: str = ""
    requests: list[tuple[str, str]] = field(default_factory=list)
    authorizations: list[str] = field(default_factory=list)


@contextmanager
def fake_s3(objects: Mapping[str, bytes]) -> Iterator[Store]:
    """Serve objects by key."""

    class Handler(_Handler):
        store = Store(objects)

    with serving(Handler) as url:
        Handler.store.url = url
        yield Handler.store


class _Handler(QuietHandler):
    store: Store

    def do_HEAD(self) -> None:
        self._respond()

    def do_GET(self) -> None:
        self._respond()

    def _respond(self) -> None:
        parts = urlsplit(self.path)
        self.store.requests.append((self.command, self.path))
        self.store.authorizations.append(self.headers.get("authorization", ""))
        bucket, _, key = unquote(parts.path).lstrip("/").partition("/")
        if bucket != "bucket":
            self._send(404, b"<Error><Code>NoSuchBucket</Code></Error>", "application/xml")
        elif not key:
            self._send(200, self._list(parse_qs(parts.query)), "application/xml")
        elif key in self.store.objects:
            self._object(self.store.objects[key])
        else:
            self._send(404, b"<Error><Code>NoSuchKey</Code></Error>", "application/xml")

    def _list(self, query: Mapping[str, list[str]]) -> bytes:
        prefix = query.get("prefix", [""])[0]
        found = {k: v for k, v in self.store.objects.items() if k.startswith(prefix)}
        rows = "".join(
            f"<Contents><Key>{escape(key)}</Key><LastModified>{_TIME}</LastModified>"
            f'<ETag>"e"</ETag><Size>{len(data)}</Size></Contents>'
            for key, data in sorted(found.items())
        )
        return (
            '<?xml version="1.0"?><ListBucketResult><Name>bucket</Name>'
            f"<Prefix>{escape(prefix)}</Prefix><KeyCount>{len(found)}</KeyCount>"
            f"<IsTruncated>false</IsTruncated>{rows}</ListBucketResult>"
        ).encode()

    def _object(self, data: bytes) -> None:
        part, content_range = part_of(data, self.headers.get("range", ""))
        more = {"content-range": content_range} if content_range else {}
        more |= {"etag": '"e"', "last-modified": _HTTP_TIME}
        self._send(206 if content_range else 200, part, "application/octet-stream", **more)

    def _send(self, status: int, body: bytes, kind: str, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"content-type": kind, **headers}.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
