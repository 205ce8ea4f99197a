"""Publishes replicas to the gateway by a file, and waits until it routes to them.

The file (`--endpoints-file`) has endpoints and resources, and is replaced atomically. Called by
`runtime`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp

from autoglm.api import AutoGLMDeployment
from autoglm.common.admin_server import PROCESS_HEADER
from autoglm.gateway.endpoints.endpoint import Phase
from autoglm.local.planning import Addresses

_POLL_SECONDS = 0.2
_TIMEOUT = aiohttp.ClientTimeout(total=2)
# Without defaults, which are the gateway's.
_PUBLISHED = {"spec": {"model", "routing", "tenancy"}}


def listing(
    addresses: Iterable[Addresses],
    resources: Iterable[AutoGLMDeployment],
    statuses: Mapping[str, Mapping[str, Any]],
) -> str:
    """Return the text of the file; `statuses` by the resources' names. Pure."""

    def published(resource: AutoGLMDeployment) -> dict[str, Any]:
        return {
            "metadata": {"name": resource.name, "namespace": resource.metadata.namespace},
            **resource.model_dump(
                mode="json", by_alias=True, exclude_unset=True, include=_PUBLISHED
            ),
            "status": statuses.get(resource.name, {}),
        }

    value = {
        "endpoints": sorted(map(_url_of, addresses)),
        "resources": [published(resource) for resource in resources],
    }
    return json.dumps(value) + "\n"


def write(path: Path, text: str) -> None:
    """Replace the file."""
    draft = path.with_name(f".{path.name}.new")
    draft.write_text(text)
    draft.replace(path)


def _url_of(addresses: Addresses) -> str:
    return f"grpc://{addresses.grpc}"


async def wait_ready(
    session: aiohttp.ClientSession,
    addresses: Addresses,
    pid: int | None,
    is_enough: Callable[[bool, Mapping[str, Any]], bool],
) -> None:
    """Poll the admin port of a process until `is_enough` of whether it is ready, and the details.

    Responses of other processes than `pid` at the address do not count.
    """

    def is_own(response: aiohttp.ClientResponse, body: bytes) -> bool:
        if response.headers.get(PROCESS_HEADER) != str(pid):
            return False
        return is_enough(response.status == 200, json.loads(body))

    await _poll(session, f"http://{addresses.metrics}/health/ready", is_own)


async def wait_routable(
    session: aiohttp.ClientSession, gateway: Addresses, addresses: Addresses
) -> None:
    """Poll the admin port of a gateway until the endpoint is ready in its pool."""

    def is_ready(response: aiohttp.ClientResponse, body: bytes) -> bool:
        if response.status != 200:
            return False
        endpoints = json.loads(body).get("endpoints", ())
        states = {endpoint["url"]: endpoint["state"] for endpoint in endpoints}
        return states.get(_url_of(addresses)) == Phase.READY.value

    await _poll(session, f"http://{gateway.metrics}/admin/endpoints", is_ready)


async def _poll(
    session: aiohttp.ClientSession,
    url: str,
    is_accepted: Callable[[aiohttp.ClientResponse, bytes], bool],
) -> None:
    """Request `url` until a response is accepted; errors before it are expected."""
    while True:
        with suppress(aiohttp.ClientError, TimeoutError, OSError, ValueError):
            async with session.get(url, timeout=_TIMEOUT) as response:
                if is_accepted(response, await response.read()):
                    return
        await asyncio.sleep(_POLL_SECONDS)
