"""Server-sent events in byte streams: whole events, and the last event of an API. Pure.

Used by the REST edge, which ends a broken stream between two events, and by the HTTP upstream.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from autoglm.validation.http_apis import RESPONSES
from autoglm.validation.http_errors import EVENT_STREAM, is_responses

EVENT_ENDS = (b"\n\n", b"\r\n\r\n", b"\r\r")
_LONGEST_END = 4
# A longer event is forwarded in parts.
MAX_HELD_BYTES = 256 * 1024
_OPENAI = (b"\ndata: [DONE]", b"\ndata:[DONE]", b'\ndata: {"error"')
# JSON text has no line breaks, so none of these occurs within the data of an event.
LAST_EVENTS: Mapping[str, tuple[bytes, ...]] = {
    "/v1/chat/completions": _OPENAI,
    "/v1/completions": _OPENAI,
    RESPONSES: (
        b"\nevent: response.completed",
        b"\nevent: response.incomplete",
        b"\nevent: response.failed",
        b"\nevent: error",
    ),
    "/v1/messages": (b"\nevent: message_stop", b"\nevent: error"),
}
_LONGEST_EVENT = max(len(mark) for marks in LAST_EVENTS.values() for mark in marks)


def is_event_stream(headers: Mapping[str, str]) -> bool:
    """Return whether a response with these headers is a stream of server-sent events.

    Names are in lower case.
    """
    return _is_event_stream(headers.get("content-type", ""))


# Called several times for each response, with the few types that servers send.
@lru_cache(maxsize=256)
def _is_event_stream(content_type: str) -> bool:
    return content_type.partition(";")[0].strip().lower() == EVENT_STREAM


class WholeEvents:
    """Cuts one stream at the ends of events. `last` is what `feed` returned last.

    An error event behind half an event would be read as part of that event.
    """

    def __init__(self) -> None:
        self._held = bytearray()
        self.last = b""

    def feed(self, chunk: bytes) -> bytes:
        """Add the next bytes; return the complete events among what is held, unchanged."""
        if not self._held and chunk.endswith(EVENT_ENDS):
            self.last = chunk
            return chunk
        searched = max(0, len(self._held) - _LONGEST_END)
        self._held += chunk
        end = max(self._end_of(end, searched) for end in EVENT_ENDS)
        if len(self._held) - end > MAX_HELD_BYTES:
            end = len(self._held)
        if not end:
            return b""
        self.last = bytes(self._held[:end])
        del self._held[:end]
        return self.last

    def rest(self) -> bytes:
        """Return what is left of a stream that has ended."""
        rest = bytes(self._held)
        self._held.clear()
        return rest

    def _end_of(self, mark: bytes, start: int) -> int:
        found = self._held.rfind(mark, start)
        return found + len(mark) if found >= 0 else 0


class LastEvent:
    """Detects the last event of one stream. `is_missing` is true until it has arrived.

    A server that speaks HTTP/1.0 ends every response by closing the connection, complete or not;
    only the events show which.
    """

    def __init__(self, target: str) -> None:
        path = RESPONSES if is_responses(target) else target.partition("?")[0]
        self._marks = LAST_EVENTS.get(path, ())
        self._seam = b"\n"
        self.is_missing = bool(self._marks)
        """False for an API whose streams have no defined last event."""

    def feed(self, chunk: bytes) -> None:
        """Search the next bytes of the stream."""
        if self.is_missing:
            seen = (self._seam + chunk).replace(b"\r\n", b"\n")
            self.is_missing = not any(mark in seen for mark in self._marks)
            self._seam = seen[-_LONGEST_EVENT:]
