"""Watches OpenAI servers that are not pods of ours: stock vLLM, SGLang, llama.cpp and the like.

Polls their models, their health where they tell it, and their load where their metrics have it,
under the names that the Gateway API Inference Extension lists. Parsing is pure; what a server does
not say stays None until the pool counts our own requests instead. Decides nothing else.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import aiohttp
import msgspec
from prometheus_client.parser import text_string_to_metric_families

from autoglm import v1
from autoglm.gateway.endpoints.endpoint import (
    Disconnected,
    Endpoint,
    Load,
    Loaded,
    ModelsDiscovered,
    Signal,
)
from autoglm.gateway.endpoints.pool import Pool
from autoglm.gateway.endpoints.upstream_key import UpstreamKey

POLL_SECONDS = 1.0
# A busy server may be slow to answer; this many polls in a row must fail before it counts as lost.
_PATIENCE = 3
_MAX_PAGE_BYTES = 8 * 1024 * 1024
_WAITING = (
    "vllm:num_requests_waiting",
    "sglang:num_queue_reqs",
    "trtllm_num_requests_waiting",
    "llamacpp:requests_deferred",
)
_RUNNING = (
    "vllm:num_requests_running",
    "sglang:num_running_reqs",
    "trtllm_num_requests_running",
    "llamacpp:requests_processing",
)
_KV_USE = (
    "vllm:kv_cache_usage_perc",
    "sglang:token_usage",
    "trtllm_kv_cache_utilization",
    "llamacpp:kv_cache_usage_ratio",
)
_ALL = (*_WAITING, *_RUNNING, *_KV_USE)


class NotServing(Exception):
    """The server answered, and what it said takes it out of the pool; the text says why."""


class _Card(msgspec.Struct):
    id: str
    created: float | None = None
    root: str | None = None
    parent: str | None = None
    max_model_len: int | None = None


class _Cards(msgspec.Struct):
    data: list[_Card] = []


@dataclass(frozen=True, slots=True)
class Reported:
    """Load as the server's metrics have it; None for what they don't."""

    running: int | None = None
    waiting: int | None = None
    kv_cache_usage: float | None = None

    def load(self) -> Load:
        """For the pool, which adds our own requests in flight; so unknown counts as no others."""
        missing = [Signal.TOKENS_IN_FLIGHT]
        if self.running is None and self.waiting is None:
            missing.append(Signal.REQUESTS)
        if self.kv_cache_usage is None:
            missing.append(Signal.KV_CACHE_USAGE)
        return Load(
            self.running or 0,
            self.waiting or 0,
            self.kv_cache_usage or 0.0,
            missing=tuple(missing),
        )


def models_of(page: bytes) -> tuple[v1.Model, ...]:
    """The models of a `/v1/models` page. Raises NotServing."""
    try:
        cards = msgspec.json.decode(page, type=_Cards).data
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise NotServing(f"/v1/models is not a list of models: {error}") from error
    return tuple(_model(card) for card in cards)


def _model(card: _Card) -> v1.Model:
    return v1.Model(
        name=card.id,
        max_model_len=min(max(card.max_model_len or 0, 0), 2**32 - 1),
        parent=card.parent or "",
        uri=card.root or "",
        engine="openai",
        created=int(card.created or 0),
    )


def reported_by(page: str) -> Reported:
    """The load on a `/metrics` page; nothing where the page is not in Prometheus' format."""
    # Pages are long; only the lines of interest are worth parsing.
    lines = [line for line in page.splitlines() if line.startswith(_ALL)]
    try:
        samples = _samples("\n".join(lines) + "\n")
    except (ValueError, LookupError):
        return Reported()
    return Reported(
        _whole(_sum(samples, _RUNNING)), _whole(_sum(samples, _WAITING)), _largest(samples, _KV_USE)
    )


def _samples(text: str) -> Mapping[str, list[float]]:
    found: dict[str, list[float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if math.isfinite(sample.value):
                found.setdefault(sample.name, []).append(sample.value)
    return found


def _values(samples: Mapping[str, list[float]], names: Iterable[str]) -> list[float]:
    return next((samples[name] for name in names if name in samples), [])


def _sum(samples: Mapping[str, list[float]], names: Iterable[str]) -> float | None:
    """Over all ranks of a server; None where it has no such metric."""
    values = _values(samples, names)
    return sum(values) if values else None


def _largest(samples: Mapping[str, list[float]], names: Iterable[str]) -> float | None:
    return max(_values(samples, names), default=None)


def _whole(value: float | None) -> int | None:
    return None if value is None else max(0, int(value))


@dataclass(frozen=True, slots=True)
class ForeignWatch:
    """A `Watch` for endpoints of kind `openai`; `timeout` is for one question, in seconds."""

    pool: Pool
    session: aiohttp.ClientSession
    key: UpstreamKey = field(default_factory=UpstreamKey)
    timeout: float = 2.0
    clock: Callable[[], float] = time.monotonic

    async def __call__(self, endpoint: Endpoint) -> None:
        """Runs until cancelled, or until the pool does not know the endpoint any more."""
        while True:
            why = await self._follow(endpoint)
            now = self.clock()
            state = self.pool.apply(endpoint.url, Disconnected(why), now)
            if state is None:
                return
            await asyncio.sleep(max(0.0, state.retry_at - now))

    async def _follow(self, endpoint: Endpoint) -> str:
        """Polls while the server answers; why it does not any more."""
        failures = _PATIENCE - 1
        while True:
            try:
                await self._poll(endpoint)
                failures = 0
            except (NotServing, aiohttp.ClientConnectorError) as error:
                return str(error)
            except (aiohttp.ClientError, TimeoutError) as error:
                failures += 1
                if failures >= _PATIENCE:
                    return str(error) or "no answer in time"
            await asyncio.sleep(POLL_SECONDS)

    async def _poll(self, endpoint: Endpoint) -> None:
        await self._check_health(endpoint)
        learned, load = await self._models(endpoint), await self._load(endpoint)
        now = self.clock()
        state = self.pool.apply(endpoint.url, Loaded(load), now)
        if state is not None and ModelsDiscovered(state.models, state.is_http10) != learned:
            self.pool.apply(endpoint.url, learned, now)
            self.pool.apply(endpoint.url, Loaded(load), now)

    async def _models(self, endpoint: Endpoint) -> ModelsDiscovered:
        status, page, is_http10 = await self._get(endpoint, "/v1/models")
        if status in (401, 403):
            raise NotServing(
                f"it answers {status}; put a key that it takes in --upstream-api-key-file"
            )
        if status != 200:
            raise NotServing(f"/v1/models answers {status}; it must be an OpenAI server's URL")
        return ModelsDiscovered(models_of(page), is_http10)

    async def _check_health(self, endpoint: Endpoint) -> None:
        """Some servers list their models with a dead engine; those say so here."""
        status, *_ = await self._get(endpoint, "/health")
        if status >= 500:
            raise NotServing(f"/health answers {status}")

    async def _load(self, endpoint: Endpoint) -> Load:
        status, page, _ = await self._get(endpoint, "/metrics")
        return (reported_by(page.decode(errors="replace")) if status == 200 else Reported()).load()

    async def _get(self, endpoint: Endpoint, path: str) -> tuple[int, bytes, bool]:
        """Status, body, and whether it came over HTTP/1.0."""
        scheme = "https" if endpoint.tls else "http"
        async with self.session.get(
            f"{scheme}://{endpoint.address}{endpoint.base}{path}",
            headers=self.key.headers,
            timeout=aiohttp.ClientTimeout(self.timeout),
            allow_redirects=False,
        ) as response:
            is_http10 = response.version is not None and response.version < aiohttp.HttpVersion11
            return response.status, await _bounded(response.content), is_http10


async def _bounded(content: aiohttp.StreamReader) -> bytes:
    page = bytearray()
    while chunk := await content.readany():
        page += chunk
        if len(page) > _MAX_PAGE_BYTES:
            raise NotServing(f"it answers with more than {_MAX_PAGE_BYTES} bytes")
    return bytes(page)
