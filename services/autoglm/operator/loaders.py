"""Polls the loaders that download for their progress.

A loader has no rights in the API server, so it serves its progress, and the operator reads it. One
that does not respond only has no progress in the status.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Final

import aiohttp
import msgspec

from autoglm.api.labels import METRICS_PORT
from autoglm.kube.kinds import Key
from autoglm.operator.types import Progress, Raw

SECONDS: Final = 5.0
"""The interval of polls, and of writes of the status of a resource that loads."""
_TIMEOUT = aiohttp.ClientTimeout(total=2.0)
_log = logging.getLogger("autoglm.operator")


class Page(msgspec.Struct):
    """The page of a loader; other fields are ignored."""

    done_bytes: int = 0
    total_bytes: int = 0
    bytes_per_second: int = 0


_pages = msgspec.json.Decoder(Page)


def progress_url(pods: Iterable[Raw]) -> str:
    """Return where the running pod of these loaders serves its progress; empty without one."""
    for pod in pods:
        status = pod.get("status") or {}
        if status.get("phase") == "Running" and (host := status.get("podIP")):
            return f"http://{f'[{host}]' if ':' in host else host}:{METRICS_PORT}/progress"
    return ""


class Loaders:
    """The last progress of each resource that loads. Calls `changed` for those that progressed."""

    def __init__(self, changed: Callable[[Key], None]) -> None:
        self._changed = changed
        self._urls: dict[Key, str] = {}
        self._progress: dict[Key, Progress] = {}
        self._wake = asyncio.Event()

    def track(self, key: Key, pods: Iterable[Raw]) -> None:
        """Poll the loader of a resource while one of its pods runs."""
        if url := progress_url(pods):
            self._urls[key] = url
            self._wake.set()
        else:
            self._urls.pop(key, None)
            self._progress.pop(key, None)

    def progress(self, key: Key) -> Progress | None:
        """Return what the loader of a resource reported last."""
        return self._progress.get(key)

    async def run(self) -> None:
        """Poll until cancelled."""
        async with aiohttp.ClientSession(timeout=_TIMEOUT) as session:
            while True:
                await self._wake.wait()
                self._wake.clear()
                urls = dict(self._urls)
                found = await asyncio.gather(*(_fetch(session, url) for url in urls.values()))
                for key, progress in zip(urls, found, strict=True):
                    if progress and key in self._urls and progress != self._progress.get(key):
                        self._progress[key] = progress
                        self._changed(key)
                await asyncio.sleep(SECONDS)
                if self._urls:
                    self._wake.set()


async def _fetch(session: aiohttp.ClientSession, url: str) -> Progress | None:
    try:
        async with session.get(url) as response:
            response.raise_for_status()
            page = _pages.decode(await response.read())
    except (aiohttp.ClientError, OSError, TimeoutError, msgspec.DecodeError) as error:
        fields = {"url": url, "error": str(error) or type(error).__name__}
        _log.debug("a loader does not respond", extra={"fields": fields})
        return None
    return Progress(page.done_bytes, page.total_bytes, page.bytes_per_second)
