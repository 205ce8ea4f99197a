"""What another gateway's Envoy shows of a pod's answer, and how its call has ended. Pure.

Called by the endpoint picker's edge. Reads no more of an answer than its head and trailers, but
where somebody has to know what it took.
"""

from __future__ import annotations

from typing import Any

from autoglm.common.errors import AutoGLMError, Cancelled
from autoglm.gateway.envoy.ending import grpc_error
from autoglm.gateway.envoy.exchange import End
from autoglm.gateway.envoy.request import seen
from autoglm.gateway.request.event_stream import is_event_stream
from autoglm.gateway.request.openai_usage import UsageReader, reported_usage
from autoglm.gateway.request.request import Usage, Wire


class Answer:
    """Of one call."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self.is_read = False
        """Whether the usage of an answer over HTTP is looked for in itself."""
        self._reader = UsageReader(is_stream=False)
        self._told: dict[str, str] = {}
        self._status = 0
        self._body_bytes = 0
        self._first_chunk = 0.0
        self.served = ""
        """The address that answers, where the proxy tells."""
        self.has_begun = self.has_ended = False

    def head(self, message: Any, now: float) -> None:
        """`message` is Envoy's `HttpHeaders`."""
        head = seen(message)
        status = head.values.get(":status", "")
        self._status = int(status) if status.isdecimal() else 0
        self._told |= head.values
        self._first_chunk = now
        if is_event_stream(head.values):
            self._reader = UsageReader(is_stream=True)
        self.has_begun = True
        self.has_ended = not head.has_body

    def piece(self, body: bytes, *, is_last: bool) -> None:
        self._body_bytes += len(body)
        if self.is_read and self._wire == "http":
            self._reader.add(body)
        self.has_ended = is_last

    def trailers(self, message: Any) -> None:
        """`message` is Envoy's `HttpTrailers`."""
        self._told |= {
            h.key: h.raw_value.decode("utf-8", "replace") for h in message.trailers.headers
        }
        self.has_ended = True

    def end(self) -> End:
        """Of an answer that is whole."""
        if self._wire == "http":
            return self._end(self._status, None)
        return self._end(self._status, grpc_error(self._told, is_refusal=not self._body_bytes))

    def left(self) -> End:
        """Of one that Envoy has dropped: whether by its client or its pod, it does not say."""
        return self._end(self._status, Cancelled("the caller went away"))

    def so_far(self) -> End:
        """Of a stream that is over: the proxy may close it before our last word has gone."""
        return self.end() if self.has_ended else self.left()

    def late(self, error: AutoGLMError) -> End:
        return self._end(self._status or error.http_status, error)

    def _end(self, status: int, error: AutoGLMError | None) -> End:
        first, size = self._first_chunk, self._body_bytes
        return End(status, error, self._usage(), first, size, self.served)

    def _usage(self) -> Usage | None:
        return reported_usage(self._told.items()) or self._reader.usage()
