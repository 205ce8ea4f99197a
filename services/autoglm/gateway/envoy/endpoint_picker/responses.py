"""Reads a pod's response from the ext_proc messages of another gateway's Envoy. Pure.

Reads only headers and trailers, unless the usage must be read from the body.
"""

from __future__ import annotations

from typing import Any

from autoglm.common.errors import AutoGLMError, Cancelled
from autoglm.gateway.envoy.access_log import grpc_error
from autoglm.gateway.envoy.endpoint_picker.request import pairs_of
from autoglm.gateway.envoy.exchange import End
from autoglm.gateway.request.event_stream import is_event_stream
from autoglm.gateway.request.http_usage import UsageReader, reported_usage
from autoglm.gateway.request.request import Wire


class PodResponse:
    """The response to one request."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self.is_read = False
        """Whether to read the usage of an HTTP response from its body."""
        self._reader = UsageReader(is_stream=False)
        self._fields: dict[str, str] = {}
        self._status = 0
        self._body_bytes = 0
        self._first_chunk = 0.0
        self.served = ""
        """The address that responds, if the proxy reports it."""
        self.has_begun = self.has_ended = False

    def head(self, message: Any, now: float) -> None:
        """Read the response headers, Envoy's `HttpHeaders`."""
        fields = dict(pairs_of(message.headers))
        status = fields.get(":status", "")
        self._status = int(status) if status.isdecimal() else 0
        self._fields |= fields
        self._first_chunk = now
        if is_event_stream(fields):
            self._reader = UsageReader(is_stream=True)
        self.has_begun = True
        self.has_ended = bool(message.end_of_stream)

    def piece(self, body: bytes, *, is_last: bool) -> None:
        """Read a piece of the body."""
        self._body_bytes += len(body)
        if self.is_read and self._wire == "http":
            self._reader.add(body)
        self.has_ended = is_last

    def trailers(self, message: Any) -> None:
        """Read the trailers, Envoy's `HttpTrailers`."""
        self._fields |= dict(pairs_of(message.trailers))
        self.has_ended = True

    def end(self) -> End:
        """Return the end of a complete response."""
        if self._wire == "http":
            return self._end(self._status, None)
        return self._end(self._status, grpc_error(self._fields, is_rejection=not self._body_bytes))

    def so_far(self) -> End:
        """Return the end of a closed stream; an incomplete response counts as cancelled.

        Envoy does not report whether the client or the pod disconnected. The proxy may close the
        stream of a complete response before it has read the last message.
        """
        if self.has_ended:
            return self.end()
        return self._end(self._status, Cancelled("the client disconnected"))

    def late(self, error: AutoGLMError) -> End:
        """Return the end of a response that missed its deadline."""
        return self._end(self._status or error.http_status, error)

    def _end(self, status: int, error: AutoGLMError | None) -> End:
        usage = reported_usage(self._fields.items()) or self._reader.usage()
        return End(status, error, usage, self._first_chunk, self._body_bytes, self.served)
