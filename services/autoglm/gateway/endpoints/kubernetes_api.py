"""Connects to the API server with the official client's configuration and credentials.

The only module of the gateway that imports the Kubernetes client. Read-only. Responses stay bytes,
which `kubernetes_watch` parses.
"""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import aiohttp
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.client.rest import RESTClientObject
from kubernetes.aio.config import (
    ConfigException,
    load_incluster_config,
    load_kube_config,
)

from autoglm.gateway.endpoints.kubernetes_watch import checked

_CONNECT_SECONDS = 5.0
# With these the kernel closes the connection to a vanished host after about 25 seconds.
_KEEPALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}


class Api:
    """Reads paths of the API server."""

    def __init__(self, client: ApiClient) -> None:
        self._client = client

    async def get(
        self, path: str, query: Mapping[str, str], silence: float
    ) -> aiohttp.ClientResponse:
        """Return the response with its body unread. Raises Refused and aiohttp's errors."""
        method, url, headers, *_ = await self._client.param_serialize(
            "GET",
            path,
            query_params=list(query.items()),
            header_params={"Accept": "application/json"},
            auth_settings=["BearerToken"],
        )
        timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=_CONNECT_SECONDS, sock_read=silence
        )
        called = await self._client.call_api(method, url, headers, _request_timeout=timeout)
        return await checked(called.response)


@asynccontextmanager
async def connect(kubeconfig: str = "") -> AsyncIterator[Api]:
    """Connect with freshly read credentials, so that renewed ones are used. Raises ValueError."""
    configuration = await _configuration(kubeconfig)
    client = ApiClient(configuration)
    client.rest_client = _Rest(configuration)
    async with client:
        yield Api(client)


async def check(kubeconfig: str = "") -> None:
    """Raise ValueError if there is no configuration for the API server."""
    await _configuration(kubeconfig)


async def _configuration(kubeconfig: str) -> Configuration:
    configuration = Configuration()
    file = kubeconfig or os.environ.get("KUBECONFIG", "")
    in_cluster = not file and "KUBERNETES_SERVICE_HOST" in os.environ
    tried = "the pod's service account" if in_cluster else f"kubeconfig {file or '~/.kube/config'}"
    try:
        if in_cluster:
            load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]  # has no annotations
        else:
            await load_kube_config(file or None, client_configuration=configuration)  # type: ignore[no-untyped-call]  # has no annotations
    except (ConfigException, OSError) as error:
        raise ValueError(
            f"no access to the Kubernetes API by {tried}: {error}; "
            "run in a pod with a service account, or give --kubeconfig FILE"
        ) from error
    return configuration


class _Rest(RESTClientObject):
    def _create_connector(self) -> aiohttp.TCPConnector:
        return aiohttp.TCPConnector(ssl=self.ssl_context, limit=0, socket_factory=_socket)


def _socket(address: aiohttp.AddrInfoType) -> socket.socket:
    family, kind, protocol, _, _ = address
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE.items():
        if hasattr(socket, name):
            made.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return made
