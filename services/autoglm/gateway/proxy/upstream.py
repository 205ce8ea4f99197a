"""The `Upstream` protocol, which sends a request to one endpoint, and the errors that it raises."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from autoglm.common.errors import AutoGLMError
from autoglm.gateway.endpoints.endpoint import EndpointView
from autoglm.gateway.request.request import GatewayRequest, Response

# The endpoints that an external proxy may retry on by itself, the best first.
Fallbacks = Callable[[], Sequence[EndpointView]]


def no_fallbacks() -> Sequence[EndpointView]:
    return ()


class Upstream(Protocol):
    """Sends a request to one endpoint; one for each wire. Returns once the first chunk has arrived.

    Before that it raises RetryElsewhere where another endpoint may succeed. The response's `close`
    cancels what is still running; an error of its chunks is an AutoGLMError (StreamBroken when the
    endpoint disconnects).
    `headers` are those to add to the request's own: request id and trace context. `fallbacks` are
    for an upstream that passes the request to a proxy with retries of its own.
    """

    async def __call__(
        self,
        request: GatewayRequest,
        /,
        endpoint: EndpointView,
        headers: Mapping[str, str],
        timeout: float,
        fallbacks: Fallbacks = no_fallbacks,
    ) -> Response: ...


class RetryElsewhere(Exception):
    """An endpoint has not responded to a request, and nothing has reached the client.

    `error` is what the client gets when no other endpoint responds either; `gone` means that the
    endpoint rejects or loses connections, `draining` that it takes no new requests,
    `elsewhere_only` that it took too long or set a Retry-After, so that only another endpoint is
    worth an attempt; `refused` that it has rejected the request, so that it is worth one more
    attempt itself where there is no other.
    """

    def __init__(
        self,
        error: AutoGLMError,
        *,
        gone: bool = False,
        draining: bool = False,
        elsewhere_only: bool = False,
        refused: bool = False,
    ) -> None:
        super().__init__(error.message)
        self.error = error
        self.gone = gone
        self.draining = draining
        self.elsewhere_only = elsewhere_only
        self.refused = refused


class Stalled(Exception):
    """An endpoint has sent the first chunk of a response, but no other for too long.

    `error` is what the client gets when no other endpoint can resume the response.
    """

    def __init__(self, error: AutoGLMError) -> None:
        super().__init__(error.message)
        self.error = error
