"""Reads the usage that an HTTP response reports, in every API that pods serve. Pure.

A pod's header `autoglm-usage` takes precedence: the Open Inference Protocol has no other field for
usage. Rate limits, fairness, spans and the access log all use the result. Nothing is parsed while a
stream passes: each chunk is searched for the key of a usage object, and the first and the last such
object are parsed at the end.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType

import msgspec

from autoglm.common.status import USAGE_TRAILER, TokenUsage, read_usage
from autoglm.gateway.request.event_stream import EVENT_ENDS, is_event_stream
from autoglm.validation.openai_stream import DATA, Choice

WHOLE_BYTES = 1024 * 1024
"""The size up to which a response that is not streamed is decoded; a longer one is searched."""
_TAIL_BYTES, _MOST_TAIL_BYTES = 8 * 1024, 16 * 1024
_KEY = b'"usage"'
_OBJECT = re.compile(rb'"usage"\s*:\s*(?=\{)')
# A usage object has a dozen short members, nested ones included.
_OBJECT_BYTES = 2 * 1024
# The end of a chunk that may begin a key with its colon, or an event's name.
_OVERLAP_BYTES = 24
_REASON = re.compile(rb'"(?:finish|stop)_reason"\s*:\s*"([a-z_]{1,40})"')
_NO_HEADERS: Mapping[str, str] = MappingProxyType({})
# The last events of the Responses API.
_RESPONSE = b"response."
_ENDS = ("completed", "incomplete", "failed")


class _Counts(msgspec.Struct):
    """The usage fields of all APIs. Anthropic's `input_tokens` excludes cached tokens."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    total_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None

    @property
    def input(self) -> int:
        given = self.prompt_tokens or self.input_tokens or 0
        cached = (self.cache_read_input_tokens or 0) + (self.cache_creation_input_tokens or 0)
        return max(given + cached, (self.total_tokens or 0) - self.output)

    @property
    def output(self) -> int:
        return self.completion_tokens or self.output_tokens or 0


class _Incomplete(msgspec.Struct):
    reason: str | None = None


class _Billed(msgspec.Struct):
    input_tokens: float | None = None
    output_tokens: float | None = None


class _Meta(msgspec.Struct):
    billed_units: _Billed | None = None


class _Counted(msgspec.Struct):
    usage: _Counts | None = None
    # Cohere's.
    meta: _Meta | None = None


class _Whole(_Counted):
    choices: list[Choice] | None = None
    stop_reason: str | None = None
    status: str | None = None
    incomplete_details: _Incomplete | None = None

    @property
    def reasons(self) -> tuple[str, ...]:
        details = self.incomplete_details
        given: Iterable[str | None] = (
            *(choice.finish_reason for choice in self.choices or ()),
            self.stop_reason,
            details.reason if details is not None and details.reason else self.status,
        )
        return tuple(reason for reason in given if reason)


def reported_usage(trailers: Iterable[tuple[str, str | bytes]]) -> TokenUsage | None:
    """Return the usage in a pod's trailers over gRPC; None without it."""
    text = next((v for k, v in trailers if k == USAGE_TRAILER and isinstance(v, str)), "")
    return read_usage(text)


def usage_of_body(headers: Mapping[str, str], body: bytes) -> TokenUsage | None:
    """Return the usage in a whole response of up to `WHOLE_BYTES`; None if there is none."""
    if is_event_stream(headers):
        reader = UsageReader(is_stream=True, headers=headers)
        reader.add(body)
        return reader.usage()
    given = headers.get(USAGE_TRAILER)
    reported = read_usage(given) if given else None
    return _of_whole(body) if reported is None else reported


class UsageReader:
    """Reads the usage of one response. `events` counts the events of a stream so far."""

    def __init__(self, *, is_stream: bool, headers: Mapping[str, str] = _NO_HEADERS) -> None:
        given = headers.get(USAGE_TRAILER)
        self._reported = read_usage(given) if given else None
        self._is_stream = is_stream
        self._pieces: list[bytes] = []
        self._size = 0
        self._overlap = b""
        self._tail = bytearray()
        self._first = self._last = b""
        self._is_open = False
        self._is_cut = False
        """Whether the last chunk ended within an event."""
        self._end = ""
        self.events = 0

    def add(self, chunk: bytes) -> None:
        """Add the next chunk of the response; searches it once and parses nothing."""
        if not self._is_stream and self._size <= WHOLE_BYTES:
            self._pieces.append(chunk)
            self._size += len(chunk)
            if self._size <= WHOLE_BYTES:
                return
            chunk, self._pieces = b"".join(self._pieces), []
        self.events += chunk.count(DATA)
        is_cut = not (self._is_stream and chunk.endswith(EVENT_ENDS))
        # A chunk of whole events without a usage is the most frequent one.
        if is_cut or self._is_cut or _KEY in chunk or _RESPONSE in chunk:
            self._search(chunk)
            self._is_cut = is_cut or self._is_open
        # Truncated rarely, so that a chunk does not copy what came before it.
        tail = self._tail
        tail += chunk
        if len(tail) > _MOST_TAIL_BYTES:
            del tail[:-_TAIL_BYTES]

    def usage(self) -> TokenUsage | None:
        """Return the usage found in the chunks added; None if there is none."""
        if self._reported is not None:
            return self._reported
        if self._pieces:
            return _of_whole(b"".join(self._pieces))
        found = [counts for text in (self._first, self._last) if (counts := _counts(text))]
        if not found:
            return None
        reasons = tuple(reason.decode() for reason in _REASON.findall(self._tail))
        if not reasons and self._end:
            reasons = (self._end,)
        return TokenUsage(max(c.input for c in found), max(c.output for c in found), reasons)

    def _search(self, chunk: bytes) -> None:
        if not self._is_cut:
            self._overlap = b""
        if self._is_open:
            self._last = (self._last + chunk)[:_OBJECT_BYTES]
            self._is_open = len(self._last) < _OBJECT_BYTES
        window = self._overlap + chunk
        found = self._find(window) if _KEY in window else 0
        if _RESPONSE in window:
            self._end = next((e for e in _ENDS if _RESPONSE + e.encode() in window), self._end)
        self._overlap = window[max(found, len(window) - _OVERLAP_BYTES) :]

    def _find(self, window: bytes) -> int:
        """Return where the last key ends, so that it is found once; 0 without one."""
        end = 0
        for match in _OBJECT.finditer(window):
            if not self._first:
                self._first = self._last
            end = match.end()
            self._last = window[end : end + _OBJECT_BYTES]
            self._is_open = len(self._last) < _OBJECT_BYTES
        return end


def _of_whole(body: bytes) -> TokenUsage | None:
    try:
        found = _decoded(body)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None
    counts = found.usage or _billed(found.meta)
    if counts is None or not (counts.input or counts.output):
        return None
    reasons = found.reasons if isinstance(found, _Whole) else ()
    return TokenUsage(counts.input, counts.output, reasons)


def _decoded(body: bytes) -> _Counted:
    try:
        return msgspec.json.decode(body, type=_Whole)
    except msgspec.ValidationError:
        # The finish reasons have another form; the counts do not depend on them.
        return msgspec.json.decode(body, type=_Counted)


def _billed(meta: _Meta | None) -> _Counts | None:
    if meta is None or meta.billed_units is None:
        return None
    units = meta.billed_units
    return _Counts(
        input_tokens=int(units.input_tokens or 0), output_tokens=int(units.output_tokens or 0)
    )


def _counts(text: bytes) -> _Counts | None:
    """Decode the usage object that `text` begins with, whatever follows it."""
    end = _object_end(text)
    try:
        counts = msgspec.json.decode(text[:end], type=_Counts)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None
    return counts if counts.input or counts.output else None


def _object_end(text: bytes) -> int:
    """Return the index after the closing brace. No member contains a brace in a string."""
    depth = 0
    for match in re.finditer(rb"[{}]", text):
        depth += 1 if match[0] == b"{" else -1
        if depth == 0:
            return match.end()
    return len(text)
