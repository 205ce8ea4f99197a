"""Reads the structure of a JSON body, piece by piece, and cuts its long values. Pure.

No object is built for a value: strings and runs of numbers are passed at the speed of C, and
lists, objects and commas are counted against `bounds`. The first one that is over its bound ends
the reading. What is not valid JSON is left to the decoder that reads the abridged body, except
within what was cut.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator, Sequence

import msgspec

from autoglm.common.errors import InvalidRequest
from autoglm.validation.bounds import DEFAULT, Bounds, too_long, too_long_in_all, too_many
from autoglm.validation.scan.abridged import (
    KEPT_NUMBERS,
    KEPT_TEXT_BYTES,
    Abridged,
    Cut,
    Numbers,
)

MAX_DEPTH = 100
"""Levels: a schema may have 64, the rest is room for what is around it."""
SMALL_BYTES = 64 * 1024
SMALL_ENTRIES = 512
"""Bodies within both are decoded as they are: that takes less than 5 ms."""
PIECE_BYTES = 64 * 1024
STEP_TOKENS = 512
"""The most that is read at a time, less than a millisecond."""
# Of a string whose rest is cut: enough to detect a URL's scheme and to show it in an error.
_STUB_BYTES = 64
_MAX_GAP_BYTES = 4096
_MAX_NAME_BYTES = 256
_WHITESPACE = b" \t\n\r"
_TOKEN = re.compile(rb'["{}\[\],:]')
_RUN = re.compile(rb"[-+0-9.eE, \t\n\r]*+")
_RUN_STARTS = frozenset(b"-0123456789 \t\n\r")
_HIGH_SURROGATES = frozenset((b"\\ud8", b"\\ud9", b"\\uda", b"\\udb"))
_OBJECT, _LIST, _END_OBJECT, _END_LIST = b"{[}]"
_QUOTE, _COMMA, _COLON, _BACKSLASH = b'",:\\'


def is_small(body: bytes | memoryview) -> bool:
    """Return whether the body can be decoded as it is. Takes some microseconds."""
    if len(body) > SMALL_BYTES:
        return False
    body = bytes(body)
    return body.count(b",") + body.count(b"{") + body.count(b"[") <= SMALL_ENTRIES


def scan(body: bytes | memoryview, bounds: Bounds = DEFAULT) -> Generator[int, None, Abridged]:
    """Yield the work of each step, in bytes read and tokens; return the abridged body.

    Raises InvalidRequest for a body that is over a bound, or whose cut parts are not valid.
    """
    reading = _Scan(body, bounds)
    start = 0
    while start < len(body):
        start = yield from reading.piece(start)
    return reading.abridged()


def too_deep() -> InvalidRequest:
    return InvalidRequest(f"the body nests deeper than {MAX_DEPTH} levels; flatten it")


class _Frame:
    """A list or an object that is open."""

    __slots__ = ("bound", "count", "field", "is_key", "is_list", "key", "numbers", "start", "total")

    def __init__(self, field: str, is_list: bool, start: int, bounds: Bounds) -> None:
        self.field = field
        self.is_list = is_list
        self.start = start
        self.key = ""
        self.is_key = not is_list
        self.count = 0
        self.bound = bounds.entries_of(field)
        self.total = bounds.totals.get(field, 0)
        self.numbers: Numbers | None = None


class _Scan:
    """The state of reading a body."""

    def __init__(self, body: bytes | memoryview, bounds: Bounds) -> None:
        self._body = body
        self._bounds = bounds
        self._least_bytes = min(bounds.bytes.values(), default=0)
        self._frames: list[_Frame] = []
        self._string = -1  # Where the open string starts.
        self._is_over = False
        self._entries = self._numbers = self._bytes = 0
        self._totals: dict[str, int] = {}
        self._text_left = KEPT_TEXT_BYTES + 2 * PIECE_BYTES
        self._numbers_left = KEPT_NUMBERS
        self._parts: list[bytes | memoryview] = []
        self._copied = 0
        self._cut = Cut({}, {})

    def abridged(self) -> Abridged:
        self._parts.append(self._body[self._copied :])
        return Abridged.of(self._parts, self._cut, self._entries, len(self._body))

    def piece(self, start: int) -> Generator[int, None, int]:
        """Read from `start`, and return where it stopped."""
        raw = bytes(self._body[start : start + PIECE_BYTES])
        is_last = start + len(raw) == len(self._body)
        # Escapes all begin with a backslash, and no other quote or backslash is left.
        text = raw.replace(b"\\\\", b"\\_").replace(b'\\"', b"\\_") if b"\\" in raw else raw
        position, is_done = 0, False
        yield len(text)
        while not is_done and position < len(text):
            for _ in range(STEP_TOKENS):
                step = self._in_string if self._string >= 0 else self._token
                position, is_done = step(start, text, position, is_last)
                if is_done or position >= len(text):
                    break
            else:
                yield STEP_TOKENS
        for frame in self._frames:
            self._check_size(frame, start + position)
        self._check_text(start + position)
        return start + position

    def _token(self, start: int, text: bytes, position: int, is_last: bool) -> tuple[int, bool]:
        frame = self._frames[-1] if self._frames else None
        if frame is not None and frame.is_list and text[position] in _RUN_STARTS:
            return self._run(frame, start, text, position, is_last)
        found = _TOKEN.search(text, position)
        if found is None:
            return self._tail(start, text, position, is_last)
        at = found.start()
        if at - position > _STUB_BYTES:
            # A long way to the next token: white space, and one literal at most.
            literal = text[position:at].strip(_WHITESPACE)
            self._check_literal(literal, start + position)
            self._drop(start + position, start + at, b" %s " % literal)
        token = text[at]
        if token == _QUOTE:
            self._string = start + at + 1
        elif token == _COMMA:
            if frame is None:
                raise InvalidRequest("the body is not valid JSON: a comma outside of its value")
            frame.is_key = not frame.is_list
            self._count(frame, 1)
        elif token in (_OBJECT, _LIST):
            self._open(frame, token == _LIST, start + at)
        elif token != _COLON:
            self._close(start + at)
        return at + 1, False

    def _open(self, parent: _Frame | None, is_list: bool, at: int) -> None:
        if self._is_over:
            raise InvalidRequest("the body is not valid JSON: something follows its end")
        if len(self._frames) >= MAX_DEPTH:
            raise too_deep()
        name = "" if parent is None else _field(parent)
        frame = _Frame(name, is_list, at, self._bounds)
        self._frames.append(frame)
        self._count(frame, 1)

    def _close(self, at: int) -> None:
        if not self._frames:
            raise InvalidRequest("the body is not valid JSON: a bracket closes nothing")
        frame = self._frames[-1]
        self._check_size(frame, at)
        if frame.field in self._bounds.bytes:
            self._bytes += at - frame.start
            if self._bytes > self._bounds.all_bytes:
                raise too_long_in_all(frame.field, self._bounds.all_bytes)
        self._frames.pop()
        self._is_over = not self._frames

    def _count(self, frame: _Frame, more: int) -> None:
        frame.count += more
        self._entries += more
        if frame.count > frame.bound:
            raise too_many(self._place(self._frames.index(frame)), frame.bound)
        if frame.total:
            total = self._totals[frame.field] = self._totals.get(frame.field, 0) + more
            if total > frame.total:
                raise too_many(frame.field, frame.total, "entries in all")
        if self._entries > self._bounds.all_entries:
            raise too_many("", self._bounds.all_entries, "values")

    def _in_string(self, start: int, text: bytes, at: int, is_last: bool) -> tuple[int, bool]:
        end = text.find(b'"', at)
        is_closed = end >= 0
        if not is_closed and not is_last and start + at == self._string and at > 1:
            # Read with the next piece, so that none but long texts are in two.
            self._string = -1
            return at - 1, True
        if not is_closed:
            # A piece ends in front of an escape or a character, so that it can be decoded.
            end = len(text) if is_last else _aligned(text, len(text), at)
        frame = self._frames[-1] if self._frames else None
        size = end - at
        if self._text_left > 0 and text.find(b"\\", at, end) >= 0:
            # As text, so that the kept part is enough for prefixes; at least half of its JSON.
            size = max(self._decoded_size(start + at, start + end), size // 2)
        if size > self._text_left:
            self._cut_text(frame, start, text, at, end)
        else:
            self._text_left -= size
        if not is_closed:
            return end, True
        if frame is not None and frame.is_key:
            frame.key, frame.is_key = self._name(self._string, start + end), False
        self._check_text(start + end)
        self._string = -1
        return end + 1, False

    def _name(self, start: int, end: int) -> str:
        raw = bytes(self._body[start : min(end, start + _MAX_NAME_BYTES)])
        if b"\\" in raw:
            try:
                return str(msgspec.json.decode(b'"%s"' % raw, type=str))
            except (msgspec.DecodeError, UnicodeDecodeError):
                pass  # The decoder says what is wrong.
        return raw.decode(errors="replace")

    def _cut_text(self, frame: _Frame | None, start: int, text: bytes, at: int, end: int) -> None:
        """Cut all of this part of a string but the string's first characters."""
        if any(frame.field in self._bounds.bytes for frame in self._frames):
            return
        if start + at == self._string:
            at = _aligned(text, min(end, at + _STUB_BYTES), at)
        self._text_left = 0
        if at == end:
            return
        self._drop(start + at, start + end)
        size = self._decoded_size(start + at, start + end)
        if frame is not None and not frame.is_key:
            name = _field(frame)
            self._cut.text[name] = self._cut.text.get(name, 0) + size  # type: ignore[index]

    def _decoded_size(self, start: int, end: int) -> int:
        try:
            value = msgspec.json.decode(b'"%s"' % bytes(self._body[start:end]), type=str)
        except UnicodeDecodeError as error:
            at = start + error.start - 1
            raise InvalidRequest(f"the body is not UTF-8 at byte {at}; send UTF-8") from error
        except msgspec.DecodeError as error:
            raise InvalidRequest(
                f"the body is not valid JSON: {error}, in a string behind byte {start}"
            ) from error
        return len(value) if value.isascii() else len(value.encode())

    def _drop(self, start: int, end: int, stand_in: bytes = b"") -> None:
        self._parts += (self._body[self._copied : start], stand_in)
        self._copied = end

    def _run(
        self, frame: _Frame, start: int, text: bytes, position: int, is_last: bool
    ) -> tuple[int, bool]:
        """Read numbers of a list, and the commas between them."""
        found = _RUN.match(text, position)
        assert found is not None
        end = found.end()
        is_cut_off = end == len(text) and not is_last
        if is_cut_off:
            end = text.rfind(b",", position, end) + 1
            if not end:
                return self._tail(start, text, position, is_last)
        run = text[position:end]
        numbers = run.strip(_WHITESPACE)
        if not numbers:
            if len(run) > _STUB_BYTES:
                self._drop(start + position, start + end)
            return end, is_cut_off
        commas = run.count(b",")
        amount = commas + (not numbers.endswith(b","))
        self._count_numbers(frame, commas)
        if (
            frame.numbers is None
            and amount <= self._numbers_left
            and len(run) <= 32 * amount + _STUB_BYTES
        ):
            self._numbers_left -= amount
        elif amount > 1 or frame.numbers is not None:
            self._cut_numbers(frame, numbers, start + position, start + end)
        return end, is_cut_off

    def _count_numbers(self, frame: _Frame, commas: int) -> None:
        if not self._bounds.is_numbers(frame.field):
            self._count(frame, commas)
            return
        self._numbers += commas + 1
        if self._numbers > self._bounds.numbers:
            raise too_many(self._place(len(self._frames) - 1), self._bounds.numbers, "numbers")

    def _cut_numbers(self, frame: _Frame, run: bytes, start: int, end: int) -> None:
        place = self._place(len(self._frames) - 1)
        listed = b"[%s]" % run.removesuffix(b",")
        values: Sequence[float]
        try:
            values, is_whole = msgspec.json.decode(listed, type=list[int]), True
        except msgspec.DecodeError:
            is_whole = False
            try:
                values = msgspec.json.decode(listed, type=list[float])
            except msgspec.DecodeError as error:
                raise InvalidRequest(f"the body is not valid JSON: {error}, in {place}") from error
        if frame.numbers is None:
            frame.numbers = self._cut.numbers[place] = Numbers()  # type: ignore[index]
        frame.numbers.add(values, is_whole=is_whole)
        self._drop(start, end, b"0," if run.endswith(b",") else b"0")

    def _tail(self, start: int, text: bytes, position: int, is_last: bool) -> tuple[int, bool]:
        """Read a piece without tokens: white space, or a literal that the next piece ends."""
        literal = text[position:].lstrip(_WHITESPACE)
        if is_last:
            return len(text), True
        self._check_literal(literal, start + position)
        end = len(text) - len(literal)
        if end - position > _STUB_BYTES:
            self._drop(start + position, start + end)
        return end, True

    def _check_literal(self, literal: bytes, at: int) -> None:
        if len(literal) > _MAX_GAP_BYTES:
            raise InvalidRequest(
                f"the body has a literal of more than {_MAX_GAP_BYTES} bytes at byte {at}; "
                "send numbers that fit in 64 bits"
            )

    def _check_text(self, position: int) -> None:
        """Check the open string, whose text may be shorter; rules check the rest exactly."""
        if position - self._string <= 2 * self._least_bytes or self._string < 0:
            return
        bound = self._bounds.bytes.get(_field(self._frames[-1])) if self._frames else None
        if bound is not None and position - self._string > 2 * bound:
            raise too_long(self._place(len(self._frames)), bound)

    def _check_size(self, frame: _Frame, position: int) -> None:
        bound = self._bounds.bytes.get(frame.field)
        if bound is not None and position - frame.start >= bound:
            raise too_long(self._place(self._frames.index(frame)), bound)

    def _place(self, depth: int) -> str:
        """Return the place of the frame of that depth, as `messages[3].content`."""
        steps: Iterator[str] = (
            f"[{frame.count - 1}]" if frame.is_list else f".{frame.key}"
            for frame in self._frames[:depth]
        )
        return "".join(steps).lstrip(".")


def _field(parent: _Frame) -> str:
    """Return the bounds' name of a value of this list or object."""
    if parent.is_list:
        return parent.field + "[]"
    return f"{parent.field}.{parent.key}" if parent.field else parent.key


def _aligned(text: bytes, end: int, start: int) -> int:
    """Return the last position up to `end` that splits neither an escape nor a character."""
    escape = text.rfind(b"\\", max(start, end - 6), end)
    if escape >= 0 and escape + (6 if text[escape + 1 : escape + 2] == b"u" else 2) > end:
        end = escape
    first = text[end - 6 : end - 2].lower() if end - 6 >= start else b""
    if first in _HIGH_SURROGATES:
        # Its other half follows.
        return end - 6
    # Without a character at the end whose last bytes are still to come.
    for back in range(1, min(4, end - start) + 1):
        byte = text[end - back]
        if byte & 0xC0 != 0x80:
            length = 2 if byte >> 5 == 6 else 3 if byte >> 4 == 14 else 4 if byte >> 3 == 30 else 1
            return end - back if length > back else end
    return end
