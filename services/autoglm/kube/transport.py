"""Sends requests to the API server over the connections of the official client.

Translates the exceptions of the libraries to `Refused` and `Unreachable`. The client is untyped,
hence the ignored calls.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urlencode, urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import msgspec
from kubernetes.aio import config as kube_config
from kubernetes.aio.client import Configuration
from kubernetes.aio.client.rest import RESTClientObject
from kubernetes.aio.config import ConfigException
from yaml import YAMLError

from autoglm.kube.errors import Refused, TimedOut, Unreachable

__all__ = (
    "Client",
    "ConfigException",
    "Configuration",
    "Refused",
    "Request",
    "TimedOut",
    "Transport",
    "Unreachable",
    "configure",
)

APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"
JSON = "application/json"
# The API server sends a bookmark about every minute: a longer silence is a dead connection.
_SILENCE = 100.0
_CONNECT = 5.0
_CLOSING_SECONDS = 0.25
_USER_AGENT = "open-autoglm/operator"


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request."""

    method: str
    path: str
    query: tuple[tuple[str, str], ...] = ()
    body: Mapping[str, Any] | None = None
    content_type: str = JSON

    @property
    def is_write(self) -> bool:
        return self.method != "GET"


class Transport(Protocol):
    """Sends requests. Raises Refused and Unreachable."""

    async def send(self, request: Request, timeout: float) -> bytes: ...

    def stream(self, request: Request) -> AsyncIterator[bytes]:
        """Yield the lines of the response as they arrive."""
        ...

    async def close(self) -> None: ...


async def configure(kubeconfig: str, context: str) -> Configuration:
    """Return the client's configuration, from a kubeconfig file or the pod's service account.

    Raises ConfigException."""
    configuration = Configuration()
    if kubeconfig:
        await _read(kubeconfig, context, configuration)
    else:
        kube_config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
    configuration.connection_pool_maxsize = 100
    # Otherwise aiohttp reads proxy settings and ~/.netrc for every request: half of its time.
    configuration.client_session_kwargs = {"trust_env": _is_behind_proxy(configuration.host)}
    return configuration


def _is_behind_proxy(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme in getproxies() and not proxy_bypass(parts.hostname or "")


async def _read(kubeconfig: str, context: str, configuration: Configuration) -> None:
    load = kube_config.load_kube_config
    try:
        await load(kubeconfig, context=context or None, client_configuration=configuration)  # type: ignore[no-untyped-call]
    except (TypeError, AttributeError, KeyError, YAMLError) as error:
        # The client does not validate the file.
        raise ConfigException(f"{kubeconfig!r} is not a kubeconfig: {error}") from error


class Client:
    """A transport over the official client.

    Its request method costs more time than the request (it traverses every body), so its
    connections are used directly: TLS, proxies and credentials stay the client's.
    """

    def __init__(self, configuration: Configuration) -> None:
        self._configuration = configuration
        self._connections = RESTClientObject(configuration)

    async def send(self, request: Request, timeout: float) -> bytes:
        limit = aiohttp.ClientTimeout(total=timeout, sock_connect=_CONNECT)
        with _translated():
            response = await self._open(request, limit)
            body: bytes = await response.read()
            return body

    async def stream(self, request: Request) -> AsyncIterator[bytes]:
        limit = aiohttp.ClientTimeout(sock_connect=_CONNECT, sock_read=_SILENCE)
        with _translated():
            response = await self._open(request, limit)
            try:
                async for line in response.content:
                    yield line
            finally:
                response.close()

    async def close(self) -> None:
        await self._connections.close()
        # aiohttp does not wait for TLS connections to end; the event loop may be gone by then.
        await asyncio.sleep(_CLOSING_SECONDS)

    async def _open(self, request: Request, limit: aiohttp.ClientTimeout) -> aiohttp.ClientResponse:
        query = f"?{urlencode(request.query)}" if request.query else ""
        opened = await self._connections.request(  # type: ignore[no-untyped-call]
            request.method,
            f"{self._configuration.host}{request.path}{query}",
            headers=await self._headers(request),
            body=request.body,
            _request_timeout=limit,
        )
        response: aiohttp.ClientResponse = opened.response
        if response.status >= 300:
            raise _refused(response, await response.read())
        return response

    async def _headers(self, request: Request) -> dict[str, str]:
        headers = {"Accept": JSON, "Content-Type": request.content_type, "User-Agent": _USER_AGENT}
        # Read for each request: a pod's token is rotated.
        credentials = await self._configuration.get_api_key_with_prefix(
            "BearerToken", "authorization"
        )
        return headers | ({"Authorization": credentials} if credentials else {})


@contextlib.contextmanager
def _translated() -> Any:
    """Translate exceptions of the client."""
    try:
        yield
    except aiohttp.ConnectionTimeoutError as error:
        raise Unreachable(str(error) or type(error).__name__) from error
    except TimeoutError as error:
        raise TimedOut(str(error) or type(error).__name__) from error
    except (aiohttp.ClientError, OSError) as error:
        raise Unreachable(str(error) or type(error).__name__) from error


def _refused(response: aiohttp.ClientResponse, body: bytes) -> Refused:
    try:
        status = msgspec.json.decode(body, type=_Status)
    except msgspec.DecodeError:
        # A proxy's page, not a Status of the API server.
        status = _Status(message=body[:200].decode(errors="replace"))
    return Refused(
        response.status,
        status.reason or str(response.reason),
        status.message,
        causes=(status.details or _Details()).causes or (),
        retry_after=_seconds(response.headers.get("Retry-After")),
    )


class _Details(msgspec.Struct):
    causes: list[dict[str, str]] | None = None


class _Status(msgspec.Struct):
    reason: str = ""
    message: str = ""
    details: _Details | None = None


def _seconds(text: str | None) -> float | None:
    return float(text) if text and text.isdigit() else None
