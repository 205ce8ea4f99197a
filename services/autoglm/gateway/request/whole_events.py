"""Passes on whole events of an event stream only, so that a stream can break between two of them.

An error event behind half an event would be read as part of it. Pure; used by the REST edge.
"""

from __future__ import annotations

from collections.abc import Mapping

from autoglm.validation.http_errors import EVENT_STREAM

_ENDS = (b"\n\n", b"\r\n\r\n", b"\r\r")
_LONGEST_END = 4
# A longer event is passed on in parts.
MAX_HELD_BYTES = 256 * 1024


def is_event_stream(headers: Mapping[str, str]) -> bool:
    """Whether a response with these headers is a stream of server-sent events."""
    kinds = (value for name, value in headers.items() if name.lower() == "content-type")
    return next(kinds, "").partition(";")[0].strip().lower() == EVENT_STREAM


class WholeEvents:
    """The events of one stream. `last` is what was passed on last."""

    def __init__(self) -> None:
        self._held = bytearray()
        self.last = b""

    def feed(self, chunk: bytes) -> bytes:
        """Takes what arrived; returns the events that are complete, as they came."""
        if not self._held and chunk.endswith(_ENDS):
            self.last = chunk
            return chunk
        searched = max(0, len(self._held) - _LONGEST_END)
        self._held += chunk
        end = max(self._end_of(end, searched) for end in _ENDS)
        if len(self._held) - end > MAX_HELD_BYTES:
            end = len(self._held)
        if not end:
            return b""
        self.last = bytes(self._held[:end])
        del self._held[:end]
        return self.last

    def rest(self) -> bytes:
        """What is left of a stream that has ended well."""
        rest = bytes(self._held)
        self._held.clear()
        return rest

    def _end_of(self, mark: bytes, start: int) -> int:
        found = self._held.rfind(mark, start)
        return found + len(mark) if found >= 0 else 0
