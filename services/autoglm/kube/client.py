"""The API server's client: the connections and credentials of the official one.

TLS, proxies and credentials are the official client's. Its request method costs more time than the
request (it traverses every body), so its connections are used directly. The client is untyped,
hence the ignored calls.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from urllib.parse import urlencode, urlsplit
from urllib.request import getproxies, proxy_bypass
from weakref import WeakSet

import aiohttp
import msgspec
from kubernetes.aio import config as kube_config
from kubernetes.aio.client import Configuration
from kubernetes.aio.client.rest import RESTClientObject
from kubernetes.aio.config import ConfigException
from yaml import YAMLError

from autoglm.kube.transport import JSON, PlainReader, Refused, Request, TimedOut, Unreachable

__all__ = ("Client", "ConfigException", "Configuration", "configure", "reading")

# The API server sends a bookmark about every minute: a longer silence is a dead connection.
_SILENCE_SECONDS = 90.0
_CONNECT_SECONDS = 5.0
_CLOSING_SECONDS = 1.0
# With these the kernel closes the connection to a vanished host after about 25 seconds.
_KEEPALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}


async def configure(kubeconfig: str, context: str = "") -> Configuration:
    """Return the client's configuration, from a kubeconfig file or the pod's service account.

    Raises ConfigException.
    """
    configuration = Configuration()
    if kubeconfig:
        load = kube_config.load_kube_config
        try:
            await load(kubeconfig, context=context or None, client_configuration=configuration)  # type: ignore[no-untyped-call]
        except (TypeError, AttributeError, KeyError, YAMLError) as error:
            # The client does not validate the file.
            raise ConfigException(f"{kubeconfig!r} is not a kubeconfig: {error}") from error
    else:
        kube_config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
    # Otherwise aiohttp reads proxy settings and ~/.netrc for every request: half of its time.
    server = urlsplit(configuration.host)
    is_behind_proxy = server.scheme in getproxies() and not proxy_bypass(server.hostname or "")
    configuration.client_session_kwargs = {"trust_env": is_behind_proxy}
    return configuration


@asynccontextmanager
async def reading(configuration: Configuration, component: str) -> AsyncIterator[PlainReader]:
    """Connect for a reflector. Raises OSError where a certificate file cannot be read."""
    client = Client(configuration, component)
    try:
        yield PlainReader(client)
    finally:
        await client.close()


class Client:
    """A transport over the official client. `component` names the sender in the User-Agent."""

    def __init__(self, configuration: Configuration, component: str) -> None:
        self._configuration = configuration
        self._connections = _Connections(configuration)
        self._user_agent = f"open-autoglm/{component}"

    async def send(self, request: Request, timeout: float) -> bytes:
        limit = aiohttp.ClientTimeout(total=timeout, sock_connect=_CONNECT_SECONDS)
        with _translated():
            response = await self._open(request, limit)
            body: bytes = await response.read()
            return body

    async def stream(self, request: Request) -> AsyncIterator[bytes]:
        limit = aiohttp.ClientTimeout(sock_connect=_CONNECT_SECONDS, sock_read=_SILENCE_SECONDS)
        with _translated():
            response = await self._open(request, limit)
            try:
                async for line in response.content:
                    yield line
            finally:
                if response.connection is not None and response.connection.transport is not None:
                    # Without a TLS shutdown, for which the server would take its time.
                    response.connection.transport.abort()
                response.close()

    async def close(self) -> None:
        """Close all connections, and wait until their sockets are closed, a second at most."""
        await self._connections.close()

    async def _open(self, request: Request, limit: aiohttp.ClientTimeout) -> aiohttp.ClientResponse:
        query = f"?{urlencode(request.query)}" if request.query else ""
        headers = {
            "Accept": JSON,
            "Content-Type": request.content_type,
            "User-Agent": self._user_agent,
        }
        # Read for each request: a pod's token is rotated.
        credentials = await self._configuration.get_api_key_with_prefix(
            "BearerToken", "authorization"
        )
        if credentials:
            headers["Authorization"] = credentials
        opened = await self._connections.request(  # type: ignore[no-untyped-call]
            request.method,
            f"{self._configuration.host}{request.path}{query}",
            headers=headers,
            body=request.body,
            _request_timeout=limit,
        )
        response: aiohttp.ClientResponse = opened.response
        if response.status >= 300:
            raise _refused(response, await response.read())
        return response


class _Connections(RESTClientObject):
    """The official client's connections: as many as there are requests, with keep-alive."""

    def __init__(self, configuration: Configuration) -> None:
        super().__init__(configuration)
        self._sockets = WeakSet[socket.socket]()

    async def close(self) -> None:
        await super().close()
        # aiohttp does not wait for connections that were ended before, but the event loop may end
        # next.
        for _ in range(100):
            if all(each.fileno() < 0 for each in self._sockets):
                return
            await asyncio.sleep(_CLOSING_SECONDS / 100)

    def _create_connector(self) -> aiohttp.TCPConnector:
        return aiohttp.TCPConnector(ssl=self.ssl_context, limit=0, socket_factory=self._socket)

    def _socket(self, address: aiohttp.AddrInfoType) -> socket.socket:
        made = _socket(address)
        self._sockets.add(made)
        return made


def _socket(address: aiohttp.AddrInfoType) -> socket.socket:
    family, kind, protocol, _, _ = address
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE.items():
        # Not on every platform.
        if hasattr(socket, name):
            made.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return made


@contextmanager
def _translated() -> Iterator[None]:
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
        status = _Status(message=" ".join(body[:200].decode(errors="replace").split()))
    retry_after = response.headers.get("Retry-After", "")
    return Refused(
        response.status,
        status.reason or str(response.reason),
        status.message,
        causes=(status.details or _Details()).causes or (),
        retry_after=float(retry_after) if retry_after.isdigit() else None,
    )


class _Details(msgspec.Struct):
    causes: list[dict[str, str]] | None = None


class _Status(msgspec.Struct):
    reason: str = ""
    message: str = ""
    details: _Details | None = None
