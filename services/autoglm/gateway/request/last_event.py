"""Whether an event stream without framing has ended with its API's last event. Pure.

A server that speaks HTTP/1.0 ends a response by closing the connection, whole or broken; only the
events show which. Used by the HTTP relay.
"""

from __future__ import annotations

from collections.abc import Mapping

from autoglm.validation.http_apis import RESPONSES
from autoglm.validation.http_errors import is_responses

_OPENAI = (b"\ndata: [DONE]", b"\ndata:[DONE]", b'\ndata: {"error"')
# JSON has no line breaks, so that none of these is found within the text of an event.
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
_LONGEST = max(len(mark) for marks in LAST_EVENTS.values() for mark in marks)


class LastEvent:
    """Watches one stream. `is_missing` holds until the last event has come."""

    def __init__(self, target: str) -> None:
        path = RESPONSES if is_responses(target) else target.partition("?")[0]
        self._marks = LAST_EVENTS.get(path, ())
        self._seam = b"\n"
        self.is_missing = bool(self._marks)
        """False for an API whose streams have no last event of their own."""

    def feed(self, chunk: bytes) -> None:
        if self.is_missing:
            seen = (self._seam + chunk).replace(b"\r\n", b"\n")
            self.is_missing = not any(mark in seen for mark in self._marks)
            self._seam = seen[-_LONGEST:]
