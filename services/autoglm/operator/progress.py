"""Polls loaders and starting replicas for their progress.

Neither has rights in the API server, so each serves its progress, and the operator reads it. One
that does not respond only has no progress in the status.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Final, Generic, TypeVar

import aiohttp
import msgspec

from autoglm.api.labels import METRICS_PORT
from autoglm.kube.kinds import Key
from autoglm.operator.status.pods import condition
from autoglm.operator.types import ObservedObjects, Progress, Raw

SECONDS: Final = 5.0
"""The interval of polls, and of writes of the status of a resource that loads."""
_TIMEOUT = aiohttp.ClientTimeout(total=2.0)
_LONGEST = 128
_log = logging.getLogger("autoglm.operator")
T = TypeVar("T")


class _LoaderPage(msgspec.Struct):
    """The page of a loader; other fields are ignored."""

    done_bytes: int = 0
    total_bytes: int = 0
    bytes_per_second: int = 0


class _Start(msgspec.Struct):
    text: str = ""


class _ReadinessPage(msgspec.Struct):
    """The page of a replica's readiness; other fields are ignored."""

    start: _Start | None = None


_loader_pages = msgspec.json.Decoder(_LoaderPage)
_readiness_pages = msgspec.json.Decoder(_ReadinessPage)


def loader_url(pods: Iterable[Raw]) -> str:
    """Return where the running pod of these loaders serves its progress; empty without one."""
    return next((f"{base}/progress" for pod in pods if (base := _base_url(pod))), "")


def loader_progress(status: int, body: bytes) -> Progress | None:
    """Return what a loader's page says. Raises msgspec.DecodeError."""
    if status != HTTPStatus.OK:
        return None
    page = _loader_pages.decode(body)
    return Progress(page.done_bytes, page.total_bytes, page.bytes_per_second)


def start_url(pods: Iterable[Raw]) -> str:
    """Return where the youngest replica that runs and is not ready serves its readiness; empty
    without one."""
    starting = [
        (pod["metadata"].get("creationTimestamp", ""), base)
        for pod in pods
        if (base := _base_url(pod))
        and "deletionTimestamp" not in pod["metadata"]
        and condition(pod, "Ready").get("status") != "True"
    ]
    return f"{max(starting)[1]}/health/ready" if starting else ""


def start_text(_status: int, body: bytes) -> str | None:
    """Return what a replica's start does, in its own words; None once it has started. Raises
    msgspec.DecodeError."""
    start = _readiness_pages.decode(body).start
    return start.text[:_LONGEST] if start else None


def _base_url(pod: Raw) -> str:
    status = pod.get("status") or {}
    host = status.get("podIP")
    if status.get("phase") != "Running" or not host:
        return ""
    return f"http://{f'[{host}]' if ':' in host else host}:{METRICS_PORT}"


class Poller(Generic[T]):
    """The last value of one page of each resource. Calls `changed` for those that changed.

    `url_of` returns the page among the pods of a resource, `read` its value from status and body.
    """

    def __init__(
        self,
        url_of: Callable[[Iterable[Raw]], str],
        read: Callable[[int, bytes], T | None],
        changed: Callable[[Key], None],
    ) -> None:
        self._url_of = url_of
        self._read = read
        self._changed = changed
        self._urls: dict[Key, str] = {}
        self._values: dict[Key, T] = {}
        self._wake = asyncio.Event()

    def track(self, key: Key, pods: Iterable[Raw]) -> None:
        """Poll the page of a resource while one of its pods has it."""
        if url := self._url_of(pods):
            self._urls[key] = url
            self._wake.set()
        else:
            self._urls.pop(key, None)
            self._values.pop(key, None)

    def value(self, key: Key) -> T | None:
        """Return what the page of a resource said last."""
        return self._values.get(key)

    async def run(self) -> None:
        """Poll until cancelled."""
        async with aiohttp.ClientSession(timeout=_TIMEOUT) as session:
            while True:
                await self._wake.wait()
                self._wake.clear()
                urls = dict(self._urls)
                found = await asyncio.gather(*(self._fetch(session, u) for u in urls.values()))
                for key, value in zip(urls, found, strict=True):
                    if value and key in self._urls and value != self._values.get(key):
                        self._values[key] = value
                        self._changed(key)
                await asyncio.sleep(SECONDS)
                if self._urls:
                    self._wake.set()

    async def _fetch(self, session: aiohttp.ClientSession, url: str) -> T | None:
        try:
            async with session.get(url) as response:
                return self._read(response.status, await response.read())
        except (aiohttp.ClientError, OSError, TimeoutError, msgspec.DecodeError) as error:
            fields = {"url": url, "error": str(error) or type(error).__name__}
            _log.debug("no progress from a pod", extra={"fields": fields})
            return None


class ProgressPages:
    """The progress of the loader and of a starting replica of each resource."""

    def __init__(self, changed: Callable[[Key], None]) -> None:
        self._loaders = Poller(loader_url, loader_progress, changed)
        self._starts = Poller(start_url, start_text, changed)

    def track(self, key: Key, observed: ObservedObjects | None) -> None:
        """Poll what the resource has; None ends it."""
        self._loaders.track(key, observed.loaders if observed else ())
        self._starts.track(key, observed.pods if observed else ())

    def loader(self, key: Key) -> Progress | None:
        return self._loaders.value(key)

    def start(self, key: Key) -> str:
        return self._starts.value(key) or ""

    async def run(self) -> None:
        """Poll until cancelled."""
        await asyncio.gather(self._loaders.run(), self._starts.run())
