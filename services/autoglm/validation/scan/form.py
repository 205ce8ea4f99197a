"""Reads the model's name out of a form with a file, without copying the file. Pure.

Stricter than servers are: what two parsers may read differently is rejected, since the model that
is authorized here must be the one that the pod runs.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass

from autoglm.common.errors import InvalidRequest
from autoglm.validation.request_info import Operation, Prompt, RequestInfo

MAX_PARTS = 64
MAX_HEAD_BYTES = 1024
MAX_VALUE_BYTES = 4096
_STEP_BYTES = 1024 * 1024
# Bytes of mono PCM at 16 kHz, of which a speech model takes fifty positions a second.
_BYTES_PER_TOKEN = 640
_KIND = re.compile(
    r"""multipart/form-data\s*;\s*boundary=(?:"([^"\\]{1,70})"|([\w'+./:=?-]{1,70}))"""
)
_DISPOSITION = re.compile(
    rb'form-data; ?name="([^"\\\r\n]{1,100})"'
    rb'((?:; ?filename(?:="[^"\r\n]{0,500}"|\*=[\w\'%.!+-]{0,500}))*)',
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class _Part:
    name: str
    is_file: bool
    start: int
    end: int


def scan_form(body: bytes, content_type: str) -> Generator[int, None, RequestInfo]:
    """Return the facts of a transcription, in steps of a few milliseconds.

    Raises InvalidRequest for a form that cannot be read. A file costs its length; without one the
    body does.
    """
    fields: dict[str, _Part] = {}
    audio = 0
    found = _KIND.match(content_type.strip())
    if found is None:
        raise InvalidRequest(
            f"header content-type is {content_type[:60]!r}; send multipart/form-data",
            field="content-type",
        )
    for part in _parts(body, b"--" + (found[1] or found[2]).encode()):
        if part is None:
            yield 0
            continue
        if part.name in fields and part.name in ("model", "stream"):
            raise InvalidRequest(f"{part.name} is given twice; send it once", field=part.name)
        fields[part.name] = part
        audio += part.end - part.start if part.is_file else 0
    tokens = -(-audio // _BYTES_PER_TOKEN)
    return RequestInfo(
        Operation.TRANSCRIBE,
        _text(body, fields, "model"),
        streaming=_text(body, fields, "stream").lower() in ("true", "1", "on", "yes", "t", "y"),
        unchecked=(Prompt("file", audio, tokens) if tokens else Prompt("body", len(body)),),
    )


def of_form(body: bytes, content_type: str) -> RequestInfo:
    """Return the facts of a transcription at once."""
    steps = scan_form(body, content_type)
    while True:
        try:
            next(steps)
        except StopIteration as done:
            info: RequestInfo = done.value
            return info


def _parts(body: bytes, mark: bytes) -> Iterator[_Part | None]:
    """Yield the parts, and None where the search for a part's end continues."""
    if not body.startswith(mark):
        raise _malformed("does not begin with its boundary")
    at, count = len(mark), 0
    while body[at : at + 2] == b"\r\n":
        count += 1
        if count > MAX_PARTS:
            raise _malformed(f"has more than {MAX_PARTS} parts")
        head_end = body.find(b"\r\n\r\n", at, at + MAX_HEAD_BYTES)
        end = -1
        for end in _ends(body, b"\r\n" + mark, at):
            if end < 0:
                yield None
        if head_end < 0 or end < head_end:
            raise _malformed(f"has a part without an end, or a head over {MAX_HEAD_BYTES} bytes")
        name, is_file = _named(body[at + 2 : head_end])
        yield _Part(name, is_file, head_end + 4, max(end, head_end + 4))
        at = end + 2 + len(mark)
    if body[at:] not in (b"--", b"--\r\n"):
        raise _malformed("does not end with its boundary")


def _ends(body: bytes, mark: bytes, start: int) -> Iterator[int]:
    """Yield -1 for every step without the mark, then its position."""
    while start < len(body):
        found = body.find(mark, start, start + _STEP_BYTES + len(mark))
        yield found
        if found >= 0:
            return
        start += _STEP_BYTES


def _named(head: bytes) -> tuple[str, bool]:
    values = [
        line.partition(b":")[2].strip()
        for line in head.split(b"\r\n")
        if line.partition(b":")[0].strip().lower() == b"content-disposition"
    ]
    found = _DISPOSITION.fullmatch(values[0]) if len(values) == 1 else None
    if found is None:
        raise _malformed("has a part whose content-disposition names no field in quotes")
    return found[1].decode("utf-8", "replace"), bool(found[2])


def _text(body: bytes, fields: Mapping[str, _Part], name: str) -> str:
    part = fields.get(name)
    if part is None:
        return ""
    if part.is_file or part.end - part.start > MAX_VALUE_BYTES:
        raise InvalidRequest(f"{name} is a file or too long; send a short text", field=name)
    try:
        return body[part.start : part.end].decode()
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"{name} is not UTF-8; send UTF-8", field=name) from error


def _malformed(what: str) -> InvalidRequest:
    return InvalidRequest(f"the form {what}; send multipart/form-data as RFC 7578 has it")
