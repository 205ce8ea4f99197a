"""Requests and output tokens a second of each process, from the counters of its metrics page.

`Rates` compares a page with the one before; `poll` reads the pages. Nothing here ever fails a run:
of a page that does not respond the rates are unknown.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable
from dataclasses import dataclass

import aiohttp

from autoglm.local.member import Member

_TIMEOUT = aiohttp.ClientTimeout(total=1)
_HEADERS = {"accept-encoding": "identity"}
_TOKENS = "vllm:generation_tokens_total"
_SAMPLE = re.compile(
    rf"^(autoglm_(?:gateway|inference)_requests_total|{_TOKENS})(?:\{{.*\}})? (\S+)", re.MULTILINE
)


@dataclass(frozen=True, slots=True)
class Counts:
    """Requests that have ended and tokens that were generated since a process started."""

    requests: float
    tokens: float | None
    """None of a process that counts none, such as the gateway."""


@dataclass(frozen=True, slots=True)
class Rate:
    """Rates of a process, each a second; None if unknown."""

    requests: float | None = None
    tokens: float | None = None


UNKNOWN = Rate()


def counts_of(page: str) -> Counts:
    """Return the sums of a page's counters, over all their labels."""
    samples = [(name, float(value)) for name, value in _SAMPLE.findall(page)]
    tokens = [value for name, value in samples if name == _TOKENS]
    requests = sum(value for name, value in samples if name != _TOKENS)
    return Counts(requests, sum(tokens) if tokens else None)


class Rates:
    """The rates of processes by name, between the last two pages of each."""

    def __init__(self) -> None:
        self._last: dict[str, tuple[int | None, float, Counts]] = {}
        self._rates: dict[str, Rate] = {}

    def of(self, name: str) -> Rate:
        """Return the rates of a process."""
        return self._rates.get(name, UNKNOWN)

    def note(self, name: str, pid: int | None, page: str | None, now: float) -> None:
        """Note the page of a process, None without a response; `now` is in seconds."""
        last = self._last.pop(name, None)
        self._rates.pop(name, None)
        if page is None:
            return
        counts = counts_of(page)
        self._last[name] = (pid, now, counts)
        # Counters of another process begin at 0.
        if last is not None and last[0] == pid and now > last[1]:
            self._rates[name] = _between(last[2], counts, now - last[1])

    def keep(self, names: Iterable[str]) -> None:
        """Forget all other processes."""
        for name in self._last.keys() - set(names):
            del self._last[name]
            self._rates.pop(name, None)


def _between(before: Counts, after: Counts, seconds: float) -> Rate:
    requests = (after.requests - before.requests) / seconds
    if before.tokens is None or after.tokens is None:
        return Rate(requests)
    return Rate(requests, (after.tokens - before.tokens) / seconds)


async def poll(
    rates: Rates, session: aiohttp.ClientSession, members: Iterable[Member], now: float
) -> None:
    """Read the page of each ready process once, all at the same time."""
    ready = [member for member in members if member.is_ready]
    rates.keep(member.name for member in ready)
    urls = [f"http://{member.addresses.metrics}/metrics" for member in ready]
    pages = await asyncio.gather(*(_page(session, url) for url in urls))
    for member, page in zip(ready, pages, strict=True):
        rates.note(member.name, member.pid, page, now)


async def _page(session: aiohttp.ClientSession, url: str) -> str | None:
    try:
        async with session.get(url, timeout=_TIMEOUT, headers=_HEADERS) as response:
            return await response.text() if response.status == 200 else None
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
        return None
