"""Reads the structure of a protobuf message, field by field, and cuts its long values. Pure.

Fields are counted against `bounds` before any object is built, as `json_scan` does for JSON. What
is not a valid message is left to the parser.
"""

from __future__ import annotations

import codecs
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from functools import cache
from operator import attrgetter
from typing import Any, TypeVar

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message

from autoglm.common.errors import InvalidRequest
from autoglm.validation.bounds import DEFAULT, Bounds, too_long, too_long_in_all, too_many
from autoglm.validation.scan.abridged import KEPT_IDS, KEPT_TEXT_BYTES, Abridged, Cut, Numbers
from autoglm.validation.scan.json_scan import MAX_DEPTH, PIECE_BYTES, STEP_TOKENS, too_deep

TINY_BYTES = 1024
SMALL_BYTES, SMALL_ENTRIES = 16 * 1024, 256
"""Messages of few bytes, or within both, are read as they are: that takes less than 8 ms."""
_STUB_BYTES = 64
Piece = bytes | memoryview
M = TypeVar("M", bound=Message)
_VARINT, _FIXED64, _DELIMITED, _FIXED32 = 0, 1, 2, 5
_CONTINUED = bytes(range(0x80, 0x100))
_MAX_VARINT_BYTES = 10
_FIXED = {
    FieldDescriptor.TYPE_FLOAT: 4,
    FieldDescriptor.TYPE_FIXED32: 4,
    FieldDescriptor.TYPE_SFIXED32: 4,
    FieldDescriptor.TYPE_DOUBLE: 8,
    FieldDescriptor.TYPE_FIXED64: 8,
    FieldDescriptor.TYPE_SFIXED64: 8,
}


def is_small(payload: bytes | memoryview, kind: type[Message]) -> bool:
    """Return whether the message can be read as it is. Takes some microseconds."""
    if len(payload) <= TINY_BYTES:
        return True
    if len(payload) > SMALL_BYTES:
        return False
    try:
        request = kind.FromString(bytes(payload))
    except DecodeError:
        # Its reader says so.
        return True
    return all(len(of(request)) <= SMALL_ENTRIES for of in _lists(kind.DESCRIPTOR))


def parsed(payload: bytes, kind: type[M]) -> M:
    """Parse a message. Raises InvalidRequest if it is not a valid `kind`."""
    try:
        return kind.FromString(payload)
    except DecodeError as error:
        raise _invalid(kind.DESCRIPTOR.full_name) from error


@cache
def _lists(descriptor: Any) -> tuple[attrgetter[Any], ...]:
    """Return getters of a message's lists, and of the lists in its single messages."""
    names = [f.name for f in descriptor.fields if f.is_repeated]
    for field in descriptor.fields:
        if field.message_type is not None and not field.is_repeated:
            inner = field.message_type.fields
            names += [f"{field.name}.{f.name}" for f in inner if f.is_repeated]
    return tuple(map(attrgetter, names))


def scan(
    payload: bytes | memoryview, kind: type[Message], bounds: Bounds = DEFAULT
) -> Generator[int, None, Abridged]:
    """Yield the work of each step, in bytes and fields; return the abridged message.

    Raises InvalidRequest for a message that is over a bound or is not a valid `kind`.
    """
    reading = _Scan(payload, bounds, kind.DESCRIPTOR.full_name)
    parts = yield from reading.message(_Span(kind.DESCRIPTOR, 0, len(payload)))
    made = [payload] if parts is None else parts
    return Abridged.of(made, reading.cut, reading.entries, len(payload))


@dataclass(frozen=True, slots=True)
class _Field:
    """A field, as the scan reads it. `size` is that of a packed value, 0 of a varint."""

    name: str
    is_repeated: bool
    message: Any = None
    is_text: bool = False
    is_bytes: bool = False
    size: int = 0


@cache
def _fields(descriptor: Any) -> dict[int, _Field]:
    return {
        f.number: _Field(
            f.name,
            f.is_repeated,
            f.message_type,
            f.type == FieldDescriptor.TYPE_STRING,
            f.type == FieldDescriptor.TYPE_BYTES,
            _FIXED.get(f.type, 0),
        )
        for f in descriptor.fields
    }


@dataclass(frozen=True, slots=True)
class _Span:
    """Where a message is. `place` is as `messages[3]`, `field` as `messages[]`."""

    descriptor: Any
    start: int
    end: int
    place: str = ""
    field: str = ""
    depth: int = 0


class _Scan:
    def __init__(self, payload: bytes | memoryview, bounds: Bounds, name: str) -> None:
        self._payload = payload
        self._bounds = bounds
        self._name = name
        self._text_left = KEPT_TEXT_BYTES + 2 * PIECE_BYTES
        self._ids_left = KEPT_IDS + PIECE_BYTES
        self._numbers = self._bytes = 0
        self._totals: dict[str, int] = {}
        self.entries = 0
        self.cut = Cut({}, {})

    def message(self, span: _Span) -> Generator[int, None, list[Piece] | None]:
        """Return the parts of the abridged message; None if it stays as it is."""
        if span.depth > MAX_DEPTH:
            raise too_deep()
        fields, counts = _fields(span.descriptor), dict[int, int]()
        parts: list[Piece] = []
        position = copied = span.start
        while position < span.end:
            self.entries += 1
            if self.entries > self._bounds.all_entries:
                raise too_many("", self._bounds.all_entries, "values")
            if self.entries % STEP_TOKENS == 0:
                yield STEP_TOKENS
            begin = position
            key, position = self._varint(position, span.end)
            number, wire = key >> 3, key & 7
            known = fields.get(number)
            if known is not None and known.is_repeated:
                counts[number] = counts.get(number, 0) + 1
                self._check(span, known, counts[number])
            if wire != _DELIMITED:
                position = self._skipped(wire, position, span.end)
                continue
            length, position = self._varint(position, span.end)
            end = position + length
            if end > span.end:
                raise _invalid(self._name)
            if known is not None:
                made = yield from self._value(span, known, counts.get(number, 0), position, end)
                if made is not None:
                    parts += (self._payload[copied:begin], _encoded(key))
                    parts += (_encoded(sum(map(len, made))), *made)
                    copied = end
            position = end
        if not parts:
            return None
        return [*parts, self._payload[copied : span.end]]

    def _value(
        self, span: _Span, known: _Field, count: int, start: int, end: int
    ) -> Generator[int, None, Sequence[Piece] | None]:
        brackets = f"[{count - 1}]" if known.is_repeated else ""
        place = f"{span.place}.{known.name}".lstrip(".")
        field = f"{span.field}.{known.name}".lstrip(".")
        if known.message is not None:
            listed = "[]" if brackets else ""
            inner = _Span(
                known.message, start, end, place + brackets, field + listed, span.depth + 1
            )
            return (yield from self.message(inner))
        bound = self._bounds.bytes.get(field)
        if bound is not None:
            self._check_size(place, field, end - start, bound)
        if known.is_text or known.is_bytes:
            name = field + ("[]" if brackets else "")
            return (yield from self._text(name, place, start, end, is_text=known.is_text))
        return (yield from self._packed(span, known, place, field, start, end))

    def _text(
        self, field: str, place: str, start: int, end: int, *, is_text: bool
    ) -> Generator[int, None, Sequence[Piece] | None]:
        if end - start <= self._text_left:
            self._text_left -= end - start
            return None
        keep = start + max(self._text_left, _STUB_BYTES)
        if field in self._bounds.bytes or keep >= end:
            return None
        while keep > start and self._payload[keep] & 0xC0 == 0x80:
            keep -= 1
        self._text_left = 0
        if is_text:
            yield from self._check_utf8(place, keep, end)
        self.cut.text[field] = self.cut.text.get(field, 0) + end - keep  # type: ignore[index]
        return (self._payload[start:keep],)

    def _check_utf8(self, place: str, start: int, end: int) -> Generator[int, None, None]:
        decoder = codecs.getincrementaldecoder("utf-8")()
        for at in range(start, end, PIECE_BYTES):
            piece = self._payload[at : min(end, at + PIECE_BYTES)]
            try:
                decoder.decode(piece, final=at + PIECE_BYTES >= end)
            except UnicodeDecodeError as error:
                raise InvalidRequest(f"{place} is not UTF-8; send UTF-8", field=place) from error
            yield len(piece)

    def _packed(
        self, span: _Span, known: _Field, place: str, field: str, start: int, end: int
    ) -> Generator[int, None, Sequence[Piece] | None]:
        total, kept = 0, start
        for at in range(start, end, PIECE_BYTES):
            piece = self._payload[at : min(end, at + PIECE_BYTES)]
            # A varint ends with a byte below 0x80.
            ends = bytes(piece).translate(None, _CONTINUED) if not known.size else b""
            count = len(piece) // known.size if known.size else len(ends)
            total += count
            is_free = self._bounds.is_numbers(field)
            bound = self._bounds.numbers if is_free else self._bounds.entries_of(field)
            self._numbers += count
            if (self._numbers if is_free else count) > bound:
                raise too_many(place, bound, "numbers" if is_free else "entries")
            if count <= self._ids_left:
                self._ids_left -= count
                kept = at + len(piece)
            yield len(piece)
        if kept >= end:
            return None
        # The last number that is kept is whole.
        if known.size:
            kept -= (kept - start) % known.size
            held = (kept - start) // known.size
        else:
            while kept > start and self._payload[kept - 1] & 0x80:
                kept -= 1
            held = len(bytes(self._payload[start:kept]).translate(None, _CONTINUED))
        rest = self.cut.numbers.get(place) or Numbers()
        rest.count += total - held
        self.cut.numbers[place] = rest  # type: ignore[index]
        return (self._payload[start:kept],)

    def _check(self, span: _Span, known: _Field, count: int) -> None:
        field = f"{span.field}.{known.name}".lstrip(".")
        if self._bounds.is_numbers(field):
            return
        bound = self._bounds.entries_of(field)
        if count > bound:
            raise too_many(f"{span.place}.{known.name}".lstrip("."), bound)
        if (most := self._bounds.totals.get(field)) is not None:
            total = self._totals[field] = self._totals.get(field, 0) + 1
            if total > most:
                raise too_many(field, most, "entries in all")

    def _check_size(self, place: str, field: str, size: int, bound: int) -> None:
        if size > bound:
            raise too_long(place, bound)
        self._bytes += size
        if self._bytes > self._bounds.all_bytes:
            raise too_long_in_all(field, self._bounds.all_bytes)

    def _varint(self, position: int, end: int) -> tuple[int, int]:
        value = shift = 0
        for at in range(position, min(end, position + _MAX_VARINT_BYTES)):
            byte = self._payload[at]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value, at + 1
            shift += 7
        raise _invalid(self._name)

    def _skipped(self, wire: int, position: int, end: int) -> int:
        if wire == _VARINT:
            return self._varint(position, end)[1]
        size = {_FIXED32: 4, _FIXED64: 8}.get(wire)
        # Groups are a form that none of our messages has.
        if size is None or position + size > end:
            raise _invalid(self._name)
        return position + size


def _invalid(name: str) -> InvalidRequest:
    return InvalidRequest(f"the request is not a valid {name}; check its encoding")


def _encoded(value: int) -> bytes:
    """Encode as a varint."""
    made = bytearray()
    while value > 0x7F:
        made.append(value & 0x7F | 0x80)
        value >>= 7
    made.append(value)
    return bytes(made)
