"""Polls every gateway pod for the pods that it can route to, and merges the responses.

A pod is routable when each gateway that responds has it in its pool. One request to each gateway
serves all resources. The interval is short while a resource is changing, and long otherwise.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import aiohttp
import msgspec

from autoglm.api.labels import METRICS_PORT
from autoglm.kube.kinds import Key
from autoglm.operator.types import Raw

Routable = Mapping[Key, frozenset[str]]
BUSY_SECONDS = 1.0
IDLE_SECONDS = 15.0
_TIMEOUT = aiohttp.ClientTimeout(total=2.0)
_PORT_NAME = "metrics"
_log = logging.getLogger("autoglm.operator")


class Endpoint(msgspec.Struct):
    """One endpoint of a gateway's page; other fields are ignored."""

    namespace: str
    deployment: str
    pod: str
    ready: bool = True


class Page(msgspec.Struct):
    endpoints: list[Endpoint]


_pages = msgspec.json.Decoder(Page)


def admin_urls(slices: Iterable[Raw]) -> tuple[str, ...]:
    """Return the URLs at which ready gateway pods of these EndpointSlices serve their page."""
    found = set()
    for endpoint_slice in slices:
        ports = endpoint_slice.get("ports") or ()
        port = next((p["port"] for p in ports if p.get("name") == _PORT_NAME), METRICS_PORT)
        for endpoint in endpoint_slice.get("endpoints") or ():
            # Absent means ready.
            if (endpoint.get("conditions") or {}).get("ready") is not False:
                host = endpoint["addresses"][0]
                found.add(f"http://{f'[{host}]' if ':' in host else host}:{port}/routable")
    return tuple(sorted(found))


def merge_pools(responses: Sequence[Page]) -> Routable | None:
    """Return the pods that all gateways have, by resource; None without any response."""
    if not responses:
        return None
    pools: list[dict[Key, set[str]]] = []
    for page in responses:
        pool: dict[Key, set[str]] = defaultdict(set)
        for endpoint in page.endpoints:
            if endpoint.ready:
                pool[Key(endpoint.namespace, endpoint.deployment)].add(endpoint.pod)
        pools.append(pool)
    keys = set().union(*pools)
    none: frozenset[str] = frozenset()
    return {key: frozenset.intersection(*(none | p.get(key, none) for p in pools)) for key in keys}


def changed_keys(old: Routable | None, new: Routable | None) -> set[Key] | None:
    """Return the resources whose pods differ; None for all of them."""
    if old is None or new is None:
        return set() if old is new else None
    return {key for key in old.keys() | new.keys() if old.get(key) != new.get(key)}


class Gateways:
    """The last merged responses. Calls `changed` with the affected resources, None for all."""

    def __init__(
        self,
        slices: Callable[[], Iterable[Raw]],
        is_busy: Callable[[], bool],
        changed: Callable[[set[Key] | None], None],
    ) -> None:
        self._slices = slices
        self._is_busy = is_busy
        self._changed = changed
        self._wake = asyncio.Event()
        self._pools: Routable | None = None

    def routable(self, key: Key) -> frozenset[str] | None:
        """Return the names of the resource's pods that every gateway has; None if none responds."""
        return None if self._pools is None else self._pools.get(key, frozenset())

    def poll_soon(self) -> None:
        """Cut a long interval short, because a resource is changing."""
        self._wake.set()

    async def run(self) -> None:
        """Poll until cancelled."""
        async with aiohttp.ClientSession(timeout=_TIMEOUT) as session:
            while True:
                urls = admin_urls(self._slices())
                pages = await asyncio.gather(*(_fetch(session, url) for url in urls))
                old, self._pools = self._pools, merge_pools([page for page in pages if page])
                changed = changed_keys(old, self._pools)
                if changed is None or changed:
                    self._changed(changed)
                self._wake.clear()
                if not self._is_busy():
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(IDLE_SECONDS - BUSY_SECONDS):
                            await self._wake.wait()
                await asyncio.sleep(BUSY_SECONDS)


async def _fetch(session: aiohttp.ClientSession, url: str) -> Page | None:
    try:
        async with session.get(url) as response:
            response.raise_for_status()
            return _pages.decode(await response.read())
    except (aiohttp.ClientError, OSError, TimeoutError, msgspec.DecodeError) as error:
        fields: dict[str, Any] = {"url": url, "error": str(error) or type(error).__name__}
        _log.debug("a gateway does not respond", extra={"fields": fields})
        return None
