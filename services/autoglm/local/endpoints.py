"""Publishes replicas to the gateway by a file, and waits until it routes to them.

The file (`--endpoints-file`) has endpoints and resources, and is replaced atomically. Called by
`runtime`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

import aiohttp

from autoglm.api import AutoGLMDeployment
from autoglm.gateway.endpoints.endpoint import Phase
from autoglm.local.planning import Addresses

_POLL_SECONDS = 0.2
_TIMEOUT = aiohttp.ClientTimeout(total=2)
# Without defaults, which are the gateway's.
_PUBLISHED = {"metadata": {"name", "namespace"}, "spec": {"model", "routing", "tenancy"}}


def write(
    path: Path, addresses: Iterable[Addresses], resources: Iterable[AutoGLMDeployment]
) -> None:
    """Replace the file."""
    listing = {
        "endpoints": sorted(map(_url_of, addresses)),
        "resources": [
            resource.model_dump(mode="json", by_alias=True, exclude_unset=True, include=_PUBLISHED)
            for resource in resources
        ],
    }
    draft = path.with_name(f".{path.name}.new")
    draft.write_text(json.dumps(listing) + "\n")
    draft.replace(path)


def _url_of(addresses: Addresses) -> str:
    return f"grpc://{addresses.grpc}"


async def wait_ready(session: aiohttp.ClientSession, addresses: Addresses) -> None:
    """Poll the admin port of a process until it is ready."""
    await _poll(session, f"http://{addresses.metrics}/health/ready", lambda _: True)


async def wait_routable(
    session: aiohttp.ClientSession, gateway: Addresses, addresses: Addresses
) -> None:
    """Poll the admin port of a gateway until the endpoint is ready in its pool."""

    def is_ready(body: bytes) -> bool:
        endpoints = json.loads(body).get("endpoints", ())
        states = {endpoint["url"]: endpoint["state"] for endpoint in endpoints}
        return states.get(_url_of(addresses)) == Phase.READY.value

    await _poll(session, f"http://{gateway.metrics}/admin/endpoints", is_ready)


async def _poll(
    session: aiohttp.ClientSession, url: str, is_accepted: Callable[[bytes], bool]
) -> None:
    """Request `url` until a response of status 200 is accepted; errors before it are expected."""
    while True:
        with suppress(aiohttp.ClientError, TimeoutError, OSError):
            async with session.get(url, timeout=_TIMEOUT) as response:
                if response.status == 200 and is_accepted(await response.read()):
                    return
        await asyncio.sleep(_POLL_SECONDS)
