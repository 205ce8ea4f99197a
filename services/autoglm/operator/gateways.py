"""Asks every gateway pod which pods it can route to. Decides what all of them together mean.

A pod is routable when each gateway that answers has it in its pool. One question to each gateway
serves all resources; they are asked often while something is on its way, and seldom otherwise.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import aiohttp
import msgspec

from autoglm.api.labels import METRICS_PORT
from autoglm.kube.key import Key
from autoglm.operator.observed import NO_DATA, NoData, Raw

Routable = Mapping[Key, frozenset[str]]
BUSY_SECONDS = 1.0
IDLE_SECONDS = 15.0
_TIMEOUT = aiohttp.ClientTimeout(total=2.0)
_PORT_NAME = "metrics"
_log = logging.getLogger("autoglm.operator")


class Endpoint(msgspec.Struct):
    """A line of a gateway's page; what else it says is not our business."""

    namespace: str
    deployment: str
    pod: str
    ready: bool = True


class Page(msgspec.Struct):
    endpoints: list[Endpoint]


_pages = msgspec.json.Decoder(Page)


def admin_urls(slices: Iterable[Raw]) -> tuple[str, ...]:
    """Where the ready gateway pods of these EndpointSlices serve their page."""
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


def merged(answers: Sequence[Page]) -> Routable | NoData:
    """Of each resource, the pods that all gateways have; NO_DATA when nobody answered."""
    if not answers:
        return NO_DATA
    pools: list[dict[Key, set[str]]] = []
    for answer in answers:
        pool: dict[Key, set[str]] = defaultdict(set)
        for endpoint in answer.endpoints:
            if endpoint.ready:
                pool[Key(endpoint.namespace, endpoint.deployment)].add(endpoint.pod)
        pools.append(pool)
    keys = set().union(*pools)
    none: frozenset[str] = frozenset()
    return {key: frozenset.intersection(*(none | p.get(key, none) for p in pools)) for key in keys}


def differing(old: Routable | NoData, new: Routable | NoData) -> set[Key] | None:
    """The resources for which something is new; None for all of them."""
    if isinstance(old, NoData) or isinstance(new, NoData):
        return set() if old is new else None
    return {key for key in old.keys() | new.keys() if old.get(key) != new.get(key)}


class Gateways:
    """What the gateways said last. `changed` gets the resources concerned, None for all."""

    def __init__(
        self,
        slices: Callable[[], Iterable[Raw]],
        is_busy: Callable[[], bool],
        changed: Callable[[set[Key] | None], None],
    ) -> None:
        self._slices = slices
        self._is_busy = is_busy
        self._changed = changed
        self._hurry = asyncio.Event()
        self._pools: Routable | NoData = NO_DATA

    def routable(self, key: Key) -> frozenset[str] | NoData:
        if isinstance(self._pools, NoData):
            return NO_DATA
        return self._pools.get(key, frozenset())

    def hurry(self) -> None:
        """Something is on its way: do not wait out a long pause."""
        self._hurry.set()

    async def run(self) -> None:
        """Until cancelled."""
        async with aiohttp.ClientSession(timeout=_TIMEOUT) as session:
            while True:
                await self._look(session)
                self._hurry.clear()
                if not self._is_busy():
                    await _first(self._hurry, IDLE_SECONDS - BUSY_SECONDS)
                await asyncio.sleep(BUSY_SECONDS)

    async def _look(self, session: aiohttp.ClientSession) -> None:
        urls = admin_urls(self._slices())
        answers = await asyncio.gather(*(_ask(session, url) for url in urls))
        old, self._pools = self._pools, merged([a for a in answers if a is not None])
        news = differing(old, self._pools)
        if news is None or news:
            self._changed(news)


async def _ask(session: aiohttp.ClientSession, url: str) -> Page | None:
    try:
        async with session.get(url) as response:
            response.raise_for_status()
            return _pages.decode(await response.read())
    except (aiohttp.ClientError, OSError, TimeoutError, msgspec.DecodeError) as error:
        fields: dict[str, Any] = {"url": url, "error": str(error) or type(error).__name__}
        _log.debug("a gateway does not answer", extra={"fields": fields})
        return None


async def _first(event: asyncio.Event, seconds: float) -> None:
    """Waits for the event, but no longer than `seconds`."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return
